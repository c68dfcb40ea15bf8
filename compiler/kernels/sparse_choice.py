"""Dense or sparse, and by which blocks: from how many blocks of a weight survive.

Times on x86 follow docs/benchmarks/sparsity.md, in units of the dense product's multiplications:
those of a sparse one take ``slope * density``, more where panels are narrow and have vectors of
eight, for they load more for each. Both have an epilogue, by one over the depth; tiles also turn
activations, by one over the outputs. Where the dense product is in tiles and few blocks survive,
vectors are faster than tiles. Engines of ARM are compared by executed instructions; lanes of a GPU
by multiplications, and the bytes that they load for each (`chosen_lanes`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from .engines.base import Engine
from .engines.counted import Counted
from .engines.registry import ENGINES, by_label
from .epilogue import Epilogue
from .executable import Kernel
from .forms import Form
from .instruction_counts import dense_instructions, sparse_instructions
from .product import ProductShape
from .sparse_format import SparseLayout, layout_for
from .sparse_gpu import SparseLanes, lane_bytes
from .sparse_product import sparse_form, sparse_product_kernel
from .sparse_tiles import SparseTiles

__all__ = [
    "Cut",
    "SparseChoice",
    "SparseEngine",
    "chosen_lanes",
    "chosen_sparse",
    "cut_of",
    "cuts",
    "sparse_activations",
    "sparse_by_label",
    "sparse_candidates",
    "sparse_choice",
    "sparse_kernel",
    "sparse_label",
    "sparse_layout",
]

SparseEngine = Engine | SparseTiles
Cut = tuple[int, int, int]
"""``group_in``, ``panel`` and ``multiple`` of a layout: its number of blocks depends on them."""

_EPILOGUE = 40
_SLOPE, _LANES_512 = 1.03, 16
# Of tiles, by precision: the epilogue of the dense product, that of the sparse one, the turning.
_TILES = {"int8": (310, 310, 58), "bf16": (256, 146, 83)}
# Of vectors in place of tiles: how much slower they multiply, and their epilogue.
_VECTORS_FOR_TILES = {"int8": (2.5, 245), "bf16": (10.0, 121)}
_LEAST_GAIN = 1.1

_GPU_LABEL = re.compile(r"gpu_sparse_(\w+)")
_TILES_LABEL = re.compile(r"amx_sparse_(int8|bf16)_\d+x(\d+)")
_MOST_TILES = 3
_DENSE_LANE = 16, 4


def cut_of(layout: SparseLayout) -> Cut:
    """The cut of a layout."""
    return layout.group_in, layout.panel, layout.multiple


def cuts() -> set[Cut]:
    """Every cut that an engine could ask for."""
    found: list[SparseEngine | SparseLanes] = [SparseLanes("f32")]
    found += [kind(rows, tiles) for kind in ENGINES for tiles, rows in kind.blocks.items()]
    for precision in ("int8", "bf16"):
        found += [SparseTiles(precision, tiles) for tiles in SparseTiles.TILES]
    return {cut_of(sparse_layout(engine, 1, 1)) for engine in found if not _dense_tiles(engine)}


def sparse_layout(engine: SparseEngine | SparseLanes, outputs: int, depth: int) -> SparseLayout:
    """The blocks that an engine takes of a weight."""
    if isinstance(engine, (SparseTiles, SparseLanes)):
        return engine.layout(outputs, depth)
    return layout_for(engine, outputs, depth)


def sparse_activations(engine: SparseEngine, rows: int, layout: SparseLayout) -> Form:
    """The form of the activations; for tiles before they are turned."""
    if isinstance(engine, SparseTiles):
        return engine.form(rows, layout.depth)
    return sparse_form(engine, rows, layout)


def sparse_kernel(
    engine: SparseEngine,
    rows: int,
    layout: SparseLayout,
    stored: int,
    epilogue: Epilogue,
    *,
    result_shape: tuple[int, int] | None = None,
) -> Kernel:
    """The product (`sparse_product_kernel`, `SparseTiles.kernel`)."""
    if isinstance(engine, SparseTiles):
        return engine.kernel(rows, layout, stored, epilogue, result_shape=result_shape)
    return sparse_product_kernel(engine, rows, layout, stored, epilogue, result_shape=result_shape)


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


@dataclass(frozen=True)
class LanesChoice:
    """The part of all blocks that is kept, and the time over that of the dense product."""

    density: float
    cost: float


def chosen_sparse(
    dense: Engine | Literal["linalg"],
    shape: ProductShape,
    stored: Callable[[SparseLayout], int | None],
    features: Iterable[str] = (),
) -> SparseChoice | None:
    """The sparse engine that stands in for ``dense``; None where none is faster.

    ``stored`` knows how many blocks a layout would keep (None: not known, so all);
    ``features`` are the core's.
    """
    if dense == "linalg":
        return None
    engines = sparse_candidates(dense, shape.rows, frozenset(features))
    found = [sparse_choice(engine, dense, shape, stored) for engine in engines]
    best = min(filter(None, found), key=lambda choice: choice.cost, default=None)
    return best if best is not None and best.cost * _LEAST_GAIN < 1 else None


def sparse_choice(
    engine: SparseEngine,
    dense: Engine,
    shape: ProductShape,
    stored: Callable[[SparseLayout], int | None],
) -> SparseChoice | None:
    """What an engine would keep, and its time by the rules; None where it cannot, or nobody knows
    how many blocks it would."""
    layout = sparse_layout(engine, shape.outputs, shape.depth)
    if engine.precision == "f32" and layout.padded_depth != shape.depth:
        return None  # nothing pads activations of f32
    count = stored(layout)
    if count is None:
        return None
    density = count / (layout.panels * layout.columns)
    return SparseChoice(engine, count, density, _cost(engine, dense, shape, density))


def chosen_lanes(
    engine: SparseLanes, outputs: int, depth: int, stored: int, lanes: int
) -> LanesChoice | None:
    """For a weight on a GPU with subgroups of ``lanes``; None where its dense product is faster.

    Law: a multiplication takes as long as a byte that a lane loads. A lane of ours has some rows
    of 16 outputs, one of IREE's dense product at most 16 rows of four.
    """
    layout = engine.layout(outputs, depth)
    density = stored / (layout.panels * layout.columns)
    cost = density * (1 + lane_bytes(engine, lanes)) / (1 + _dense_lane_bytes(engine))
    return LanesChoice(density, cost) if density < 1 and cost * _LEAST_GAIN < 1 else None


def _dense_lane_bytes(engine: SparseLanes) -> float:
    """That a lane loads for one multiplication."""
    rows, outputs = _DENSE_LANE
    return engine.weight_bytes * (rows + outputs) / (rows * outputs)


def sparse_candidates(
    dense: Engine, rows: int, features: frozenset[str]
) -> Iterable[SparseEngine]:
    """What could stand in for a dense engine on a core with these features."""
    if not _dense_tiles(dense):
        return _of_kind(type(dense), dense.padded_rows(rows))
    vectors = [
        kind
        for kind in ENGINES
        if kind.precision == dense.precision
        and kind.name.startswith("avx512")
        and features.issuperset(kind.features)
    ]
    tiles = [SparseTiles(dense.precision, tiles) for tiles in SparseTiles.TILES]
    return [*tiles, *(engine for kind in vectors[:1] for engine in _of_kind(kind, rows))]


def _of_kind(kind: type[Engine], rows: int) -> list[Engine]:
    return [kind.for_blocks(tiles, rows) for tiles in kind.blocks]


def _cost(engine: SparseEngine, dense: Engine, shape: ProductShape, density: float) -> float:
    """The time of the sparse product over that of the dense one."""
    if isinstance(engine, Counted) and isinstance(engine, Engine):
        group_in = layout_for(engine, 1, 1).group_in
        kept = sparse_instructions(engine, shape.depth, group_in, density)
        return kept / dense_instructions(dense, shape.depth)
    slope = 0.8 + 0.68 / _vectors(engine)
    whole = epilogue = float(_EPILOGUE)
    turning = 0.0
    if _dense_tiles(dense):
        whole, epilogue, turning = _TILES[dense.precision]
        if not isinstance(engine, SparseTiles):
            slower, epilogue = _VECTORS_FOR_TILES[dense.precision]
            slope, turning = slope * slower, 0.0
    elif dense.lanes == _LANES_512:
        slope = _SLOPE
    own = slope * density + epilogue / shape.depth + turning / shape.outputs
    return own / (1 + whole / shape.depth)


def _vectors(engine: SparseEngine) -> float:
    """The width of a panel, in thirds of the widest that its registers have room for."""
    widest = _MOST_TILES if isinstance(engine, SparseTiles) else max(type(engine).blocks)
    return _MOST_TILES * engine.tiles / widest


def _dense_tiles(engine: SparseEngine | SparseLanes) -> bool:
    """Whether it takes neighbouring depth groups only."""
    return isinstance(engine, Engine) and engine.name.startswith("amx")
