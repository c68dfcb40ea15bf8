"""One product to choose for, with numbers to try candidates on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.base import Engine
from ..product import ProductShape

__all__ = ["Numbers", "Problem", "from_bf16", "numbers_for", "to_bf16"]

Array = NDArray[Any]


@dataclass(frozen=True, order=True)
class Problem:
    """``rows`` x ``depth`` activations by ``outputs`` x ``depth`` weights in a precision."""

    precision: str
    rows: int
    depth: int
    outputs: int

    @property
    def shape(self) -> ProductShape:
        """The dimensions alone."""
        return ProductShape(self.rows, self.depth, self.outputs)


@dataclass(frozen=True)
class Numbers:
    """What every candidate for a problem computes with, before its engine lays it out.

    ``activations`` [rows, depth] and ``weights`` [outputs, depth]: f32; for bf16 f32 numbers that
    bf16 holds; for int8 codes 0..255 and -127..127. ``bias`` [outputs]; ``expected``
    [rows, outputs] in float64.
    """

    precision: str
    activations: Array
    weights: Array
    bias: Array
    expected: Array

    def arguments(self, engine: Engine) -> list[Array]:
        """The inputs of `product_kernel` with a bias; the packed weights are the second."""
        rows, depth = self.activations.shape
        laid = np.zeros((engine.padded_rows(rows), engine.row_stride(depth)), np.float32)
        laid[:rows, :depth] = self.activations
        if self.precision == "int8":
            shift = 128 if engine.signed else 0
            codes = (laid - shift).astype(np.int8 if engine.signed else np.uint8).view(np.int8)
            codes[:rows, depth:] = 0
            scales = np.tile(np.array([1, shift], np.float32), (len(laid), 1))
            ones = np.ones(len(self.weights), np.float32)
            sums = self.weights.sum(1, dtype=np.float64).astype(np.float32)
            weights = engine.pack(self.weights.astype(np.int8))
            return [codes, weights, scales, ones, sums, self.bias]
        if self.precision == "bf16":
            return [to_bf16(laid), engine.pack(to_bf16(self.weights)), self.bias]
        return [laid, engine.pack(self.weights), self.bias]


def numbers_for(problem: Problem) -> Numbers:
    """The same numbers each time."""
    rng = np.random.default_rng(0)
    if problem.precision == "int8":
        x = rng.integers(0, 256, (problem.rows, problem.depth)).astype(np.float32)
        w = rng.integers(-127, 128, (problem.outputs, problem.depth)).astype(np.float32)
    else:
        x = rng.standard_normal((problem.rows, problem.depth), np.float32)
        w = rng.standard_normal((problem.outputs, problem.depth), np.float32)
        w /= np.float32(math.sqrt(problem.depth))
        if problem.precision == "bf16":
            x, w = from_bf16(to_bf16(x)), from_bf16(to_bf16(w))
    bias = rng.standard_normal(problem.outputs, np.float32)
    expected = x.astype(np.float64) @ w.T.astype(np.float64) + bias
    return Numbers(problem.precision, x, w, bias, expected)


def to_bf16(values: Array) -> Array:
    """f32 as bf16, to nearest even, in i16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


def from_bf16(values: Array) -> Array:
    """bf16 in i16 as f32."""
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
