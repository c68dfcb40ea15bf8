"""Dense or sparse, and by which blocks: from how many blocks of a weight survive.

The time of a sparse product over that of the dense one is about ``cost * density + fixed``
(docs/benchmarks/sparsity.md): narrow panels load more for each multiplication, and the fixed
part is the epilogue, which is the same in both; where products are as fast as in tiles, it and
turning the activations weigh more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from .engines.base import Engine
from .engines.registry import ENGINES, by_label
from .product import ProductShape
from .sparse_format import SparseLayout, layout_for
from .sparse_gpu import SparseLanes
from .sparse_tiles import SparseTiles

__all__ = [
    "NARROW_SUBGROUP",
    "Cut",
    "SparseChoice",
    "SparseEngine",
    "chosen_lanes",
    "chosen_sparse",
    "cut_of",
    "cuts",
    "sparse_by_label",
    "sparse_label",
    "sparse_layout",
]

SparseEngine = Engine | SparseTiles
Cut = tuple[int, int, int]
"""``group_in``, ``panel`` and ``multiple`` of a layout: its number of blocks depends on them."""

_FIXED = 0.05
_FIXED_TILES = 0.2
_LEAST_GAIN = 1.1
_MOST_ON_SOFTWARE, _MOST_ON_GPU = 0.9, 0.5
NARROW_SUBGROUP = 8
"""A subgroup as narrow as this is a CPU's vector."""

_GPU_LABEL = re.compile(r"gpu_sparse_(\w+)")
_TILES_LABEL = re.compile(r"amx_sparse_(int8|bf16)_\d+x(\d+)")
_MOST_TILES = 3


def cut_of(layout: SparseLayout) -> Cut:
    """The cut of a layout."""
    return layout.group_in, layout.panel, layout.multiple


def cuts() -> set[Cut]:
    """Every cut that an engine could ask for."""
    found: list[SparseEngine | SparseLanes] = [SparseLanes("f32")]
    found += [kind(rows, tiles) for kind in ENGINES for tiles, rows in kind.blocks.items()]
    for precision in ("int8", "bf16"):
        found += [SparseTiles(precision, tiles + 1) for tiles in range(_MOST_TILES)]
    return {cut_of(sparse_layout(engine, 1, 1)) for engine in found if not _dense_tiles(engine)}


def sparse_layout(engine: SparseEngine | SparseLanes, outputs: int, depth: int) -> SparseLayout:
    """The blocks that an engine takes of a weight."""
    if isinstance(engine, (SparseTiles, SparseLanes)):
        return engine.layout(outputs, depth)
    return layout_for(engine, outputs, depth)


def sparse_label(engine: SparseEngine | SparseLanes) -> str:
    """What `sparse_by_label` knows it by; engines that pack alike have the same one."""
    return engine.packing if isinstance(engine, Engine) else engine.label


def sparse_by_label(label: str) -> SparseEngine | SparseLanes:
    """The engine whose `sparse_label` this is. Raises `InputError` if there is none."""
    if match := _GPU_LABEL.fullmatch(label):
        return SparseLanes(match[1])
    match = _TILES_LABEL.fullmatch(label)
    return SparseTiles(match[1], int(match[2]) // 16) if match else by_label(label)


@dataclass(frozen=True)
class SparseChoice:
    """An engine, the blocks and the part of all blocks that it keeps, and its time over that of
    the dense product."""

    engine: SparseEngine
    stored: int
    density: float
    cost: float


def chosen_sparse(
    dense: Engine | Literal["linalg"],
    shape: ProductShape,
    stored: Callable[[SparseLayout], int | None],
) -> SparseChoice | None:
    """The sparse engine that stands in for ``dense``; None where none is faster.

    ``stored`` knows how many blocks a layout would keep (None: not known, so all).
    """
    if dense == "linalg":
        return None
    found = []
    for engine in _candidates(dense, shape.rows):
        layout = sparse_layout(engine, shape.outputs, shape.depth)
        if engine.precision == "f32" and layout.padded_depth != shape.depth:
            continue  # nothing pads activations of f32
        count = stored(layout)
        if count is not None:
            density = count / (layout.panels * layout.columns)
            fixed = _FIXED_TILES if isinstance(engine, SparseTiles) else _FIXED
            cost = (0.8 + 0.68 / _vectors(engine)) * density + fixed
            found.append(SparseChoice(engine, count, density, cost))
    best = min(found, key=lambda choice: choice.cost, default=None)
    return best if best is not None and best.cost * _LEAST_GAIN < 1 else None


def chosen_lanes(
    engine: SparseLanes, outputs: int, depth: int, stored: int, lanes: int
) -> float | None:
    """The density of a weight on a GPU with subgroups of ``lanes``; None where its dense product
    is faster: measured in software, where subgroups are narrow; on others taken from the number
    of multiplications, with room for a dense product that reads its operands more cleverly."""
    layout = engine.layout(outputs, depth)
    density = stored / (layout.panels * layout.columns)
    most = _MOST_ON_SOFTWARE if lanes <= NARROW_SUBGROUP else _MOST_ON_GPU
    return density if density <= most else None


def _candidates(dense: Engine, rows: int) -> Iterable[SparseEngine]:
    if _dense_tiles(dense):
        return [SparseTiles(dense.precision, tiles + 1) for tiles in range(_MOST_TILES)]
    kind = type(dense)
    padded = dense.padded_rows(rows)
    return [kind(min(most, padded), tiles) for tiles, most in kind.blocks.items()]


def _vectors(engine: SparseEngine) -> float:
    """The width of a panel, in thirds of the widest that its registers have room for."""
    widest = _MOST_TILES if isinstance(engine, SparseTiles) else max(type(engine).blocks)
    return _MOST_TILES * engine.tiles / widest


def _dense_tiles(engine: SparseEngine | SparseLanes) -> bool:
    """Whether it takes neighbouring depth groups only."""
    return isinstance(engine, Engine) and engine.name.startswith("amx")
