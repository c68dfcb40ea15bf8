"""What candidates are called, and how they pack weights.

A candidate's label is its engine's (``avx512_f32_8x48``), or `LINALG`. Its *packing* is how the
weight lies in memory, which all modules that share the weight must agree on. Where weights are
zero there are also ``sparse_avx512_f32_8x48`` and ``gathered_avx512_f32_8x48``.
"""

from __future__ import annotations

from ....errors import InputError
from ...quantization.precisions import WEIGHT_BITS
from ..engines.base import Engine
from ..engines.registry import by_label
from ..sparse_choice import sparse_by_label, sparse_label
from ..sparse_tiles import SparseTiles
from ..weight_rows import rows_by_label
from .problem import Problem

__all__ = [
    "DENSE",
    "GATHERED",
    "LINALG",
    "SPARSE",
    "STORED",
    "packing_of",
    "serves",
    "stored_by_label",
]

LINALG = "linalg"
"""The label of the product as IREE compiles it without a kernel of ours; f32 alone."""

GATHERED, DENSE, STORED, SPARSE = "gathered", "dense", "stored", "sparse_"
"""How a weight lies in memory: without the inputs that have no weights; as if it had no zeros
(how, is another choice); as codes, the same for all engines; block by block, which an engine's
label follows."""


def packing_of(label: str, problem: Problem | None = None) -> str | None:
    """How a candidate packs weights; None for a label that is no block of an engine.

    A ``problem`` with zeros or with stored weights knows other ways than dense ones do.
    """
    if problem and problem.precision in WEIGHT_BITS:
        return STORED if stored_by_label(label) else None
    if problem and problem.zeros:
        return _packing_with_zeros(label)
    if label == LINALG:
        return LINALG
    engine = _block_of(label)
    return engine.packing if engine else None


def serves(label: str, problem: Problem) -> bool:
    """Whether a label is of a candidate, and of one for this problem."""
    if label == LINALG:
        return problem.precision == "f32"
    if packing_of(label, problem) is None:
        return False
    if problem.precision in WEIGHT_BITS:
        return True
    if label.startswith(SPARSE):
        return sparse_by_label(label.removeprefix(SPARSE)).precision == problem.precision
    return by_label(label.removeprefix(f"{GATHERED}_")).precision == problem.precision


def stored_by_label(label: str) -> Engine | None:
    """The engine that multiplies by codes in memory; None if this is the label of none."""
    engine: Engine | None = rows_by_label(label) or _block_of(label)
    return engine if engine and engine.precision != "int8" else None


def _block_of(label: str) -> Engine | None:
    try:
        engine = by_label(label)
    except InputError:
        return None
    return engine if engine.block_rows <= engine.blocks.get(engine.tiles, 0) else None


def _packing_with_zeros(label: str) -> str | None:
    if label == LINALG:
        return DENSE
    if label.startswith(SPARSE):
        try:
            engine = sparse_by_label(label.removeprefix(SPARSE))
        except InputError:
            return None
        tiles = isinstance(engine, SparseTiles) and engine.tiles in SparseTiles.TILES
        known = tiles or (isinstance(engine, Engine) and _block_of(engine.label) is not None)
        return f"{SPARSE}{sparse_label(engine)}" if known else None
    gathered = label.startswith(f"{GATHERED}_")
    if _block_of(label.removeprefix(f"{GATHERED}_")) is None:
        return None
    return GATHERED if gathered else DENSE
