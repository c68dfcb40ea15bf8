"""Block-sparse products to try, and what must come out."""

from __future__ import annotations

from typing import Any

import numpy as np

from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.product import ProductShape
from canao.compiler.kernels.sparse_format import SparseLayout, layout_for
from canao.compiler.kernels.sparse_product import sparse_form, sparse_product_kernel
from canao.compiler.kernels.sparse_tiles import SparseTiles

from .product_cases import Case, dequantised, finished, from_bf16, to_bf16

__all__ = ["PATTERNS", "draw_survivors", "layout_of", "sparse_case", "zeroed"]

_Array = np.ndarray[Any, Any]
PATTERNS = ("blocks", "one block", "columns", "panels", "none", "all")
_ROUNDING = 2.0**-24


def draw_survivors(layout: SparseLayout, pattern: str, seed: int) -> _Array:
    """[panels, columns]: the blocks that may have weights."""
    rng = np.random.default_rng(seed)
    shape = (layout.panels, layout.columns)
    match pattern:
        case "none":
            return np.zeros(shape, bool)
        case "all":
            return np.ones(shape, bool)
        case "one block":
            found = np.zeros(shape, bool)
            found[rng.integers(shape[0]), rng.integers(shape[1])] = True
            return found
        case "columns":
            return np.broadcast_to(rng.random(shape[1]) < 0.5, shape).copy()
        case "panels":
            return np.broadcast_to(rng.random((shape[0], 1)) < 0.5, shape).copy()
    return rng.random(shape) < rng.choice([0.1, 0.5, 0.9])


def zeroed(weight: _Array, layout: SparseLayout, survivors: _Array) -> _Array:
    """``weight`` with zeros in all other blocks."""
    wide = survivors.repeat(layout.panel, axis=0).repeat(layout.group_in, axis=1)
    return np.where(wide[: layout.outputs, : layout.depth], weight, 0).astype(weight.dtype)


def layout_of(engine: Engine | SparseTiles, outputs: int, depth: int) -> SparseLayout:
    if isinstance(engine, SparseTiles):
        return engine.layout(outputs, depth)
    return layout_for(engine, outputs, depth)


def sparse_case(
    engine: Engine | SparseTiles,
    shape: ProductShape,
    epilogue: Epilogue,
    pattern: str,
    seed: int,
) -> Case:
    """As `product_case`: with the identity int8 must be right to the bit."""
    rng = np.random.default_rng(seed)
    rows, depth, outputs = shape.rows, shape.depth, shape.outputs
    layout = layout_of(engine, outputs, depth)
    survivors = draw_survivors(layout, pattern, seed)
    tiles = isinstance(engine, SparseTiles)
    form = engine.form(rows, depth) if tiles else sparse_form(engine, rows, layout)
    padded = (form.padded_rows, form.stride)
    if form.integer:
        low, high = (-128, 127) if form.kind == "s8" else (0, 255)
        x = rng.integers(low, high + 1, padded)
        weight = rng.integers(-128, 128, (outputs, depth)).astype(np.int8)
    else:
        x = rng.standard_normal(padded).astype(np.float32)
        weight = rng.standard_normal((outputs, depth)).astype(np.float32)
    x[:, depth:] = 0
    weight = zeroed(weight, layout, survivors)
    if form.kind == "bf16":
        stored, weight = to_bf16(x), to_bf16(weight)
        x, exact = from_bf16(stored), from_bf16(weight)
    else:
        stored = x if form.kind == "f32" else x.astype(np.uint8).view(np.int8)
        exact = weight
    places, starts = layout.index(survivors)
    packed = layout.pack(weight, survivors)
    if tiles:
        stored = words(stored, engine.block_rows)
        kernel = engine.kernel(rows, layout, len(places), epilogue)
    else:
        kernel = sparse_product_kernel(engine, rows, layout, len(places), epilogue)
    arguments: list[_Array] = [stored, packed.reshape(1, -1), places, starts]
    value = x[:rows, :depth].astype(np.float64) @ exact.T.astype(np.float64)
    if form.integer:
        value, error = dequantised(rng, arguments, value, form.padded_rows, epilogue)
    else:
        sizes = np.abs(x[:rows, :depth]).astype(np.float64) @ np.abs(exact.T).astype(np.float64)
        error = sizes * (depth + 8) * 2 * _ROUNDING
    value, error = finished(rng, arguments, value, error, epilogue)
    return Case(kernel, arguments, value, error)


def words(stored: _Array, block: int) -> _Array:
    """What `words_kernel` makes, with anything where no row is."""
    rows = np.ascontiguousarray(stored).view(np.int32)
    blocks = -(-len(rows) // block)
    full = np.full((blocks * block, rows.shape[1]), 0x12345678, np.int32)
    full[: len(rows)] = rows
    return full.reshape(blocks, block, -1).transpose(0, 2, 1).copy()
