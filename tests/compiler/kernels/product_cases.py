"""Products to try engines with, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from canao.compiler.kernels import vector_math
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.product import ProductShape, product_kernel

__all__ = [
    "IDENTITY",
    "Case",
    "dequantised",
    "finished",
    "from_bf16",
    "product_case",
    "sum_error",
    "to_bf16",
]

_Array = np.ndarray[Any, Any]

IDENTITY = Epilogue(bias=False)
_ROUNDING = 2.0**-24


def to_bf16(values: _Array) -> _Array:
    """f32 as bf16, to nearest even, in i16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


def from_bf16(values: _Array) -> _Array:
    """bf16 in i16 as f32."""
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Case:
    """A kernel, its arguments, what it must return and by how much that may be off."""

    kernel: Kernel
    arguments: list[_Array]
    expected: _Array
    tolerance: _Array

    def check(self, found: _Array) -> None:
        """Compare, saying which kernel is wrong and where."""
        if found.dtype == np.int16:
            found = from_bf16(found)
        assert found.shape == self.expected.shape, self.kernel.name
        wrong = ~(np.abs(found - self.expected) <= self.tolerance)
        assert not wrong.any(), (
            f"{self.kernel.name}: {wrong.sum()} of {wrong.size} wrong, first at "
            f"{np.argwhere(wrong)[0]}: {found[wrong][0]} for {self.expected[wrong][0]}"
        )


def product_case(engine: Engine, shape: ProductShape, epilogue: Epilogue, seed: int) -> Case:
    """Random values, the extreme ones often; with `IDENTITY` int8 must be right to the bit."""
    rng = np.random.default_rng(seed)
    rows, depth, outputs = shape.rows, shape.depth, shape.outputs
    padded, stride = engine.padded_rows(rows), engine.row_stride(depth)
    arguments: list[_Array]
    if engine.precision == "int8":
        low, high = (-128, 127) if engine.signed else (0, 255)
        # Rows of padding hold anything.
        codes = rng.integers(low, high + 1, (padded, stride))
        extremes = rng.random((padded, stride)) < rng.choice([0.0, 0.5, 1.0])
        codes[extremes] = rng.choice([low, high], extremes.sum())
        codes[:, depth:] = 0
        weights = rng.integers(-128, 128, (outputs, depth))
        if rng.random() < 0.5:
            weights = rng.choice([-128, 127], weights.shape)
        activations = codes.astype(np.int8 if engine.signed else np.uint8).view(np.int8)
        arguments = [activations, engine.pack(weights.astype(np.int8))]
        sums = (codes[:rows, :depth] @ weights.T).astype(np.float64)
        value, error = dequantised(rng, arguments, sums, padded, epilogue)
    else:
        x = rng.standard_normal((padded, stride)).astype(np.float32)
        x[:, depth:] = 0
        w = rng.standard_normal((outputs, depth)).astype(np.float32)
        if engine.precision == "bf16":
            arguments = [to_bf16(x), engine.pack(to_bf16(w))]
            x, w = from_bf16(to_bf16(x)), from_bf16(to_bf16(w))
        else:
            arguments = [x, engine.pack(w)]
        value = x[:rows, :depth].astype(np.float64) @ w.T.astype(np.float64)
        sizes = np.abs(x[:rows, :depth]).astype(np.float64) @ np.abs(w.T).astype(np.float64)
        error = sum_error(sizes, depth)
    value, error = finished(rng, arguments, value, error, epilogue)
    return Case(product_kernel(engine, shape, epilogue), arguments, value, error)


def sum_error(sizes: _Array, depth: int) -> _Array:
    """By how much sums of ``depth`` terms may be off; ``sizes``: the sums of the terms' sizes."""
    # BFMMLA rounds twice in each four, and not to the nearest.
    return sizes * (depth + 8) * 2 * _ROUNDING


def dequantised(
    rng: np.random.Generator,
    arguments: list[_Array],
    sums: _Array,
    padded: int,
    epilogue: Epilogue,
) -> tuple[_Array, _Array]:
    rows, outputs = sums.shape
    if epilogue == IDENTITY:
        scales = np.tile(np.array([1, 0], np.float32), (padded, 1))
        arguments += [scales, np.ones(outputs, np.float32), np.zeros(outputs, np.float32)]
        assert np.abs(sums).max(initial=0) < 2**24
        return sums, np.zeros_like(sums)
    scales = rng.uniform(-0.05, 0.05, (padded, 2)).astype(np.float32)
    weight_scales = rng.uniform(0, 0.01, outputs).astype(np.float32)
    column_sums = rng.standard_normal(outputs).astype(np.float32)
    arguments += [scales, weight_scales, column_sums]
    product = sums * scales[:rows, :1].astype(np.float64) * weight_scales
    shift = scales[:rows, 1:].astype(np.float64) * column_sums
    return product + shift, 4 * _ROUNDING * (np.abs(product) + np.abs(shift))


def finished(
    rng: np.random.Generator,
    arguments: list[_Array],
    value: _Array,
    error: _Array,
    epilogue: Epilogue,
) -> tuple[_Array, _Array]:
    if epilogue == IDENTITY:
        return value, error
    if epilogue.bias:
        bias = rng.standard_normal(value.shape[1]).astype(np.float32)
        arguments.append(bias)
        error = error + 2 * _ROUNDING * (np.abs(value) + np.abs(bias))
        value = value + bias
    if epilogue.activation != "none":
        reference = getattr(vector_math, f"{epilogue.activation}_reference")
        # No slope is above 1.13. `vector_math` promises less than what is allowed here.
        error = 1.2 * error + (1e-6 if epilogue.accurate else 2e-4) * np.maximum(1, np.abs(value))
        value = reference(value)
    if epilogue.residual:
        residual = rng.standard_normal(value.shape).astype(np.float32)
        arguments.append(residual)
        error = error + 2 * _ROUNDING * (np.abs(value) + np.abs(residual))
        value = value + residual
    if epilogue.output == "bf16":
        error = error + 2.0**-8 * (np.abs(value) + error)
    return value, error
