"""What the kernels of `quantize` compute, in NumPy and bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from .quantize import LARGEST, TINY, Form, Scheme

__all__ = ["quantize_reference"]

_Array = np.ndarray[Any, Any]


def quantize_reference(
    x: _Array,
    *,
    form: Form = "u8",
    scheme: Scheme = "asymmetric",
    static: tuple[float, float] | None = None,
) -> tuple[_Array, _Array]:
    """What `quantize_kernel` computes, bit for bit: codes [rows, depth] and S [rows, 2].

    A fused multiply-add of f32 is the float64 expression rounded to f32: a float64 holds the
    product, and here also the sum, of f32 numbers closely enough that only one rounding counts.
    """
    row = x.astype(np.float32)
    row = np.where(np.abs(row) < np.finfo(np.float32).tiny, np.float32(0.0), row)
    with np.errstate(all="ignore"):
        if scheme == "symmetric":
            return _symmetric_reference(row, form)
        if static is not None:
            scale, offset = (np.full((len(row), 1), v, np.float32) for v in static)
            low = offset if form == "u8" else _fused(scale, -128.0, offset)
            shift, factor = low * np.float32(-0.5), np.float32(2.0) / scale
            half = scale * np.float32(127.5)
        else:
            none = np.isnan(row).all(1, keepdims=True)
            low = np.where(none, LARGEST, np.nanmin(row, 1, keepdims=True, initial=np.inf))
            high = np.where(none, -LARGEST, np.nanmax(row, 1, keepdims=True, initial=-np.inf))
            low, high = (np.clip(v, -LARGEST, LARGEST).astype(np.float32) for v in (low, high))
            shift = low * np.float32(-0.5)
            half = _fused(high, 0.5, shift)
            varies = half >= np.float32(TINY)
            scale = np.where(varies, half * np.float32(2.0 / 255.0), np.float32(0.0))
            factor = np.where(varies, np.float32(255.0) / half, np.float32(0.0))
            offset = low if form == "u8" else _fused(scale, 128.0, low)
            offset = np.where(none, np.float32(np.nan), offset)
        codes = _rounded(_fused(row, 0.5, shift), factor, np.zeros_like(half), half)
    if form == "s8":
        codes = codes - 128.0
    return codes.astype(np.uint8 if form == "u8" else np.int8), np.concatenate([scale, offset], 1)


def _symmetric_reference(row: _Array, form: Form) -> tuple[_Array, _Array]:
    largest = np.nanmax(np.abs(row), 1, keepdims=True, initial=-1.0)
    any_number = largest >= 0
    largest = np.minimum(largest, np.float32(LARGEST))
    varies = largest >= np.float32(TINY)
    scale = np.where(varies, largest * np.float32(1.0 / 127.0), np.float32(0.0))
    scale = np.where(any_number, scale, np.float32(np.nan))
    factor = np.where(varies, np.float32(127.0) / largest, np.float32(0.0))
    codes = _rounded(row, factor, -largest, largest)
    if form == "s8":
        return codes.astype(np.int8), np.concatenate([scale, np.zeros_like(scale)], 1)
    return (codes + 128.0).astype(np.uint8), np.concatenate([scale, scale * np.float32(-128.0)], 1)


def _fused(a: _Array, b: float, c: _Array) -> _Array:
    result: _Array = (a.astype(np.float64) * b + c).astype(np.float32)
    return result


def _rounded(x: _Array, factor: _Array, lowest: _Array, highest: _Array) -> _Array:
    """The nearest integers to the products, which float64 holds exactly; NaN is the highest."""
    kept = np.maximum(np.where(x < highest, x, highest), lowest)
    return np.rint(kept.astype(np.float64) * factor.astype(np.float64))
