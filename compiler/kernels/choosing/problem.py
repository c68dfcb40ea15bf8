"""One product to choose for, with numbers to try candidates on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...quantization.precisions import WEIGHT_BITS
from ..engines.base import Engine
from ..forms import Form, form_for
from ..product import ProductShape
from ..sparse_choice import SparseEngine, sparse_activations, sparse_layout
from ..weight_format import GROUP, WeightFormat
from .zeros import INPUTS, Zeros, mask_of

__all__ = ["Numbers", "Problem", "from_bf16", "numbers_for", "to_bf16"]

Array = NDArray[Any]


@dataclass(frozen=True, order=True)
class Problem:
    """``rows`` x ``depth`` activations by ``outputs`` x ``depth`` weights in a precision.

    Of the weights ``kept`` per cent are other than zero, in blocks of ``panel`` outputs
    (`zeros.Zeros`); 100 are all.
    """

    precision: str
    rows: int
    depth: int
    outputs: int
    panel: int = INPUTS
    kept: int = 100

    @property
    def shape(self) -> ProductShape:
        """The dimensions alone."""
        return ProductShape(self.rows, self.depth, self.outputs)

    @property
    def zeros(self) -> Zeros | None:
        """What is zero in the weights; None if nothing is."""
        return Zeros(self.panel, self.kept) if self.kept < 100 else None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[outputs, depth]: which weights there are."""
        return mask_of(self.zeros, self.outputs, self.depth)

    def spelled(self) -> str:
        """For people."""
        shape = f"{self.precision} {self.rows} x {self.depth} x {self.outputs}"
        return f"{shape}, {self.zeros.spelled()}" if self.zeros else shape


@dataclass(frozen=True)
class Numbers:
    """What every candidate for a problem computes with, before its engine lays it out.

    ``activations`` [rows, depth] and ``weights`` [outputs, depth]: f32; for bf16 f32 numbers that
    bf16 holds; for int8 codes 0..255 and -127..127; where weights alone are narrow the weights
    are codes times ``scale``. ``bias`` [outputs]; ``expected`` [rows, outputs] in float64.
    """

    precision: str
    activations: Array
    weights: Array
    bias: Array
    expected: Array
    scale: float = 1.0

    def arguments(self, engine: Engine) -> list[Array]:
        """The inputs of `product_kernel` with a bias; the packed weights are the second."""
        rows, depth = self.activations.shape
        values, *scales = self._laid(form_for(engine, rows, depth))
        packed = engine.pack(self._stored(self.weights))
        return [values, packed, *scales, *self._vectors(self.weights), self.bias]

    def sparse_arguments(self, engine: SparseEngine) -> list[Array]:
        """Likewise for a product that leaves blocks of zeros out."""
        outputs, depth = self.weights.shape
        layout = sparse_layout(engine, outputs, depth)
        survivors = layout.survivors(self.weights)
        packed = layout.pack(self._stored(self.weights), survivors).reshape(1, -1)
        form = sparse_activations(engine, len(self.activations), layout)
        values, *scales = self._laid(form)
        lists = layout.index(survivors)
        return [values, packed, *lists, *scales, *self._vectors(self.weights), self.bias]

    def gathered_arguments(self, engine: Engine) -> list[Array]:
        """The plain activations, which of them are kept, and what a dense product takes of the
        weights that there are."""
        kept = np.flatnonzero(self.weights.any(axis=0))
        weights = self.weights[:, kept]
        packed = engine.pack(self._stored(weights))
        places = kept.astype(np.int32)
        return [self.activations, places, packed, *self._vectors(weights), self.bias]

    def stored_arguments(self, engine: Engine, form: WeightFormat) -> list[Array]:
        """The inputs of `weight_only_kernel`; the words are the second."""
        rows, depth = self.activations.shape
        outputs = len(self.weights)
        words = form.pack(np.round(self.weights / self.scale).astype(np.int8))
        if form.bits == 4:
            scales = np.full((outputs, math.ceil(depth / GROUP)), self.scale, np.float32)
            packed = form.pack_scales(to_bf16(scales))
        else:
            packed = form.pack_scales(np.full((outputs, 1), self.scale, np.float32))
        values = self._laid(form_for(engine, rows, depth))
        return [*values, words, packed, self.bias]

    def _laid(self, form: Form) -> list[Array]:
        """The activations as a kernel reads them."""
        rows, depth = self.activations.shape
        laid = np.zeros((form.padded_rows, form.stride), np.float32)
        laid[:rows, :depth] = self.activations
        if form.kind == "bf16":
            return [to_bf16(laid)]
        if not form.integer:
            return [laid]
        shift = 128 if form.kind == "s8" else 0
        codes = (laid - shift).astype(np.int8 if shift else np.uint8).view(np.int8)
        codes[:rows, depth:] = 0
        return [codes, np.tile(np.array([1, shift], np.float32), (len(laid), 1))]

    def _stored(self, weights: Array) -> Array:
        """Weights in the element that engines pack."""
        if self.precision == "int8":
            return weights.astype(np.int8)
        return to_bf16(weights) if self.precision == "bf16" else weights

    def _vectors(self, weights: Array) -> list[Array]:
        """Scales and sums of each output, in int8."""
        if self.precision != "int8":
            return []
        sums = weights.sum(1, dtype=np.float64).astype(np.float32)
        return [np.ones(len(weights), np.float32), sums]


def numbers_for(problem: Problem) -> Numbers:
    """The same numbers each time."""
    rng = np.random.default_rng(0)
    bits, scale = WEIGHT_BITS.get(problem.precision), 1.0
    shape = (problem.outputs, problem.depth)
    mask = problem.mask
    if problem.precision == "int8":
        x = rng.integers(0, 256, (problem.rows, problem.depth)).astype(np.float32)
        if problem.zeros:
            # Whoever quantises what is picked has the same codes again.
            x[:, np.flatnonzero(mask.any(axis=0))[:2]] = 0, 255
        w = rng.integers(-127, 128, shape).astype(np.float32)
    else:
        x = rng.standard_normal((problem.rows, problem.depth), np.float32)
        w = rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(problem.depth))
        if bits:
            # A power of two, so that bf16 holds every weight.
            most, scale = 2 ** (bits - 1) - 1, 2.0**-bits
            w = rng.integers(-most, most + 1, shape).astype(np.float32) * np.float32(scale)
        if bits or problem.precision == "bf16":
            x, w = from_bf16(to_bf16(x)), from_bf16(to_bf16(w))
    w *= mask
    bias = rng.standard_normal(problem.outputs, np.float32)
    expected = x.astype(np.float64) @ w.T.astype(np.float64) + bias
    return Numbers(problem.precision, x, w, bias, expected, scale)


def to_bf16(values: Array) -> Array:
    """f32 as bf16, to nearest even, in i16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


def from_bf16(values: Array) -> Array:
    """bf16 in i16 as f32."""
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
