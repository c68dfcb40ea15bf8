"""Packing of weights with zero blocks: nothing is lost, no block of zeros is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES
from canao.compiler.kernels.sparse_format import SparseLayout
from canao.compiler.kernels.sparse_tiles import SparseTiles

from .sparse_cases import PATTERNS, draw_survivors, layout_of, zeroed

REGISTERS = [
    kind(rows, tiles)
    for kind in ENGINES
    if not kind.name.startswith("amx")
    for tiles, rows in kind.blocks.items()
]
TILES = [SparseTiles(precision, tiles) for precision in ("int8", "bf16") for tiles in (3, 1)]


@given(
    st.sampled_from([*REGISTERS, *TILES]),
    st.integers(1, 130),
    st.integers(1, 130),
    st.sampled_from(PATTERNS),
    st.integers(0, 2**32),
)
def test_unpacking_gives_the_weight_back(
    engine: Engine | SparseTiles, outputs: int, depth: int, pattern: str, seed: int
) -> None:
    layout = layout_of(engine, outputs, depth)
    drawn = draw_survivors(layout, pattern, seed)
    numbers = np.random.default_rng(seed).integers(1, 127, (outputs, depth)).astype(np.int8)
    weight = zeroed(numbers, layout, drawn)
    survivors = layout.survivors(weight)
    np.testing.assert_array_equal(survivors, drawn)
    places, starts = layout.index(survivors)
    packed = layout.pack(weight, survivors)
    assert packed.shape == (layout.stored(survivors), layout.block_size)
    assert len(places) == len(packed)
    counts = np.diff(starts)
    assert (counts % layout.multiple == 0).all()
    assert (counts - survivors.sum(1) < layout.multiple).all()
    np.testing.assert_array_equal(layout.unpack(packed, places, starts), weight)


@pytest.mark.parametrize("engine", REGISTERS, ids=lambda engine: engine.label)
def test_with_every_block_it_is_the_dense_packing(engine: Engine) -> None:
    layout = layout_of(engine, 2 * engine.panel + 1, 64)
    weight = np.random.default_rng(0).integers(1, 99, (layout.outputs, 64)).astype(np.int8)
    packed = layout.pack(weight, layout.survivors(weight))
    np.testing.assert_array_equal(packed.reshape(layout.panels, -1), engine.pack(weight))


def test_finest_blocks() -> None:
    assert {layout_of(engine, 96, 96).group_in for engine in TILES} == {4}
    groups = {e.name: layout_of(e, 96, 96).group_in for e in REGISTERS}
    assert {name for name, size in groups.items() if size != 4} == {"neon_matrix_int8"}


def test_a_block_that_rounds_to_zero_stays() -> None:
    """The list follows the real weight, as the totals are known before it is quantised."""
    layout = SparseLayout(16, 8, 4, 16, 16, 4)
    survivors = np.array([[True, False]])
    packed = layout.pack(np.zeros((16, 8), np.int8), survivors)
    assert packed.shape == (1, 64)
