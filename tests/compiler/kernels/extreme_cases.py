"""Products of f32 and bf16 with rows of extreme numbers, and what must come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.product import ProductShape, product_kernel

from .product_cases import finished, from_bf16, sum_error, to_bf16

__all__ = ["KINDS", "Extremes", "extreme_case"]

_Array = np.ndarray[Any, Any]

_SMALLEST_NORMAL = 2.0**-126
# Sums of larger terms may overflow on the way; bf16 ends somewhat below f32.
_LARGEST = 3.38e38
# A NaN of ones only becomes -0 where it is rounded as if it were a number.
_NAN = np.uint32(0x7FFFFFFF).view(np.float32)

KINDS = (
    "normal",
    "one inf",
    "one -inf",
    "both infs",
    "nan",
    "infs",
    "one huge",
    "huge",
    "overflowing",
    "denormal",
    "zeros",
    "constant",
    "constant huge",
)


def _row(rng: np.random.Generator, kind: str, depth: int) -> _Array:
    row = rng.standard_normal(depth)
    places = rng.integers(0, depth, 2)
    match kind:
        case "one inf":
            row[places[0]] = np.inf
        case "one -inf":
            row[places[0]] = -np.inf
        case "both infs":
            row[places] = np.inf, -np.inf
        case "nan":
            row[places[0]] = np.nan
        case "infs":
            row = np.copysign(np.inf, row)
        case "one huge":
            row[places[0]] = 1e38
        case "huge":
            row = np.copysign(1e38 / depth, row)
        case "overflowing":
            row = np.copysign(1e38, row)
        case "denormal":
            row *= 1e-39
        case "zeros":
            row = np.copysign(0.0, row)
        case "constant" | "constant huge":
            row[:] = 1e38 if kind == "constant huge" else row[0]
    found = row.astype(np.float32)
    found[np.isnan(found)] = _NAN
    return found


@dataclass(frozen=True)
class Extremes:
    """A kernel, its arguments with extreme rows, and others with normal ones in their place.

    ``unchanged``: rows that are the same in both; ``unknown``: results that depend on the order
    of sums, because those overflow in one order and not in another.
    """

    kernel: Kernel
    arguments: list[_Array]
    quiet: list[_Array]
    unchanged: _Array
    expected: _Array
    tolerance: _Array
    unknown: _Array

    def check(self, found: _Array, quiet: _Array) -> None:
        """Compare what came of the arguments, and of the quiet ones."""
        same = found[self.unchanged] == quiet[self.unchanged]
        assert same.all(), f"{self.kernel.name}: rows disturb each other"
        if found.dtype == np.int16:
            found = from_bf16(found)
        assert found.shape == self.expected.shape, self.kernel.name
        with np.errstate(invalid="ignore"):
            near = np.abs(found - self.expected) <= self.tolerance
        alike = np.where(np.isnan(self.expected), np.isnan(found), found == self.expected)
        right = np.where(np.isfinite(self.expected), near, alike) | self.unknown
        assert right.all(), (
            f"{self.kernel.name}: {(~right).sum()} of {right.size} wrong, first at "
            f"{np.argwhere(~right)[0]}: {found[~right][0]} for {self.expected[~right][0]}"
        )


def extreme_case(
    engine: Engine, shape: ProductShape, epilogue: Epilogue, kinds: Sequence[str], seed: int
) -> Extremes:
    """Row after row is of the next of ``kinds``, and so on; those of padding are NaN."""
    rng = np.random.default_rng(seed)
    rows, depth, outputs = shape.rows, shape.depth, shape.outputs
    padded, stride = engine.padded_rows(rows), engine.row_stride(depth)
    names = [kinds[n % len(kinds)] for n in range(rows)]
    x = np.full((padded, stride), _NAN)
    x[:, depth:] = 0
    for n, kind in enumerate(names):
        x[n, :depth] = _row(rng, kind, depth)
    unchanged = np.array([kind == "normal" for kind in names])
    calm = rng.standard_normal((padded, stride)).astype(np.float32)
    calm[:, depth:] = 0
    calm[:rows][unchanged] = x[:rows][unchanged]
    # Sums of "one huge" and "huge" stay below the largest number; infinity times zero is none.
    w = np.clip(rng.standard_normal((outputs, depth)), -3, 3).astype(np.float32)
    w[rng.random(w.shape) < 0.05] = 0
    if rng.random() < 0.5:
        w = np.abs(w)
    if engine.precision == "bf16":
        narrow, narrow_calm = _to_bf16(x), _to_bf16(calm)
        first, second = [narrow, engine.pack(to_bf16(w))], [narrow_calm, engine.pack(to_bf16(w))]
        x, w = from_bf16(narrow), from_bf16(to_bf16(w))
    else:
        first, second = [x, engine.pack(w)], [calm, engine.pack(w)]
    with np.errstate(all="ignore"):
        # No library of matrices: each product and each sum as IEEE says.
        terms = x[:rows, None, :depth].astype(np.float64) * w.astype(np.float64)
        value, sizes = terms.sum(-1), np.abs(terms).sum(-1)
        over = np.isfinite(value) & (sizes > _LARGEST)
        one_sign = np.abs(value) >= sizes * (1 - 1e-12)
        unknown = over & ~(one_sign & (sizes > 1.02 * _LARGEST))
        value = np.where(over & ~unknown, np.copysign(np.inf, value), value)
        # Denormals may count as zero: inputs, products and sums.
        tiny = np.abs(x[:rows, :depth]) < _SMALLEST_NORMAL
        lost = np.where(tiny[:, None], np.abs(terms), 0).sum(-1)
        error = sum_error(sizes, depth) + lost + 2 * (depth + 8) * _SMALLEST_NORMAL
        extra: list[_Array] = []
        value, error = finished(rng, extra, value, error, epilogue)
    kernel = product_kernel(engine, shape, epilogue)
    return Extremes(kernel, [*first, *extra], [*second, *extra], unchanged, value, error, unknown)


def _to_bf16(values: _Array) -> _Array:
    """As `to_bf16`, NaN with all bits set."""
    found = to_bf16(np.where(np.isnan(values), np.float32(0), values))
    found[np.isnan(values)] = 0x7FFF
    return found
