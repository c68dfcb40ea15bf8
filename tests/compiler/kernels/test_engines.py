"""Engines: which one a product takes, how it packs weights, depth groups out of order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.emitter import Emitter
from canao.compiler.kernels.engines.base import Block, Engine, words_of
from canao.compiler.kernels.engines.in_registers import InRegisters
from canao.compiler.kernels.engines.registry import ENGINES, by_label, engine_for, engines
from canao.compiler.kernels.executable import Kernel, Operand
from canao.compiler.kernels.values import Buffer, Value
from canao.errors import InputError

from .batch import PLACES, run_batch
from .product_cases import from_bf16, to_bf16

_Array = np.ndarray[Any, Any]
PRECISIONS = ("int8", "bf16", "f32")
FEATURES = sorted({feature for kind in ENGINES for feature in kind.features})
ALL_BLOCKS = [kind(rows, tiles) for kind in ENGINES for tiles, rows in kind.blocks.items()]

feature_sets = st.sets(st.sampled_from(FEATURES))
precisions = st.sampled_from(PRECISIONS)
sizes = st.integers(1, 5000)


@pytest.mark.parametrize("engine", ALL_BLOCKS, ids=lambda engine: engine.label)
def test_labels_name_engines(engine: Engine) -> None:
    assert by_label(engine.label) == engine
    assert by_label(engine.packing).panel == engine.panel
    assert type(by_label(engine.packing)) is type(engine)


@pytest.mark.parametrize(
    "label",
    ["", "avx512_int8", "avx512_int8_8x47", "avx512_int8_0x48", "abacus_1x1", "avx2_f32_6x16x"],
)
def test_other_labels_are_refused(label: str) -> None:
    with pytest.raises(InputError, match="label"):
        by_label(label)


def test_names_differ() -> None:
    assert len({kind.name for kind in ENGINES}) == len(ENGINES)


@given(feature_sets, precisions, sizes, sizes, sizes)
def test_weights_do_not_depend_on_rows(
    features: set[str], precision: str, outputs: int, rows: int, others: int
) -> None:
    one = engine_for(features, precision, outputs, rows)
    two = engine_for(features, precision, outputs, others)
    if one is None or two is None:
        assert one is two
        assert engines(features, precision) == []
        return
    assert one.packing == two.packing
    assert one.precision == precision
    assert set(one.features) <= features
    assert 1 <= one.block_rows <= one.blocks[one.tiles]
    assert one.block_rows % one.row_multiple == 0
    assert one.block_rows <= one.padded_rows(rows)
    # At most half more than what the narrowest panel would compute.
    narrow = min(one.blocks) * one.lanes
    least = -(-outputs // narrow) * narrow
    assert least <= one.panels(outputs) * one.panel <= 1.5 * least


@pytest.mark.parametrize(
    ("target", "precision", "best"),
    [
        ("arm64", "int8", ["neon_int8"]),
        ("arm64", "f32", ["neon_f32"]),
        ("arm64", "bf16", []),
        ("arm64-i8mm", "int8", ["neon_matrix_int8", "neon_int8"]),
        ("arm64-i8mm", "bf16", ["neon_matrix_bf16"]),
        ("arm64-i8mm", "f32", ["neon_f32"]),
    ],
)
def test_arm_targets(target: str, precision: str, best: list[str]) -> None:
    assert [e.name for e in engines(targets.get(target).features, precision)] == best


def test_the_best_come_first() -> None:
    everything = [f for f in FEATURES if f not in targets.get("arm64-i8mm").features]
    names = [engine.name for engine in engines(everything, "int8")]
    assert names == ["amx_int8", "avx512_int8", "avxvnni_int8", "avx2_int8"]
    assert [e.name for e in engines(["avx2", "fma"], "int8")] == ["avx2_int8"]
    assert engines(["sse4.2"], "f32") == []


@given(
    st.sampled_from(ALL_BLOCKS), st.integers(1, 130), st.integers(1, 130), st.integers(0, 2**32)
)
def test_packing_keeps_every_weight(engine: Engine, outputs: int, depth: int, seed: int) -> None:
    """Weight [n, k] is where the panel, the step, the tile, the lane and the group say."""
    weight = np.random.default_rng(seed).integers(1, 127, (outputs, depth)).astype(np.int8)
    packed = engine.pack(weight)
    assert packed.shape == engine.packed_shape(outputs, depth)
    assert np.count_nonzero(packed) == weight.size
    n, k = np.indices(weight.shape)
    panel, column = np.divmod(n, engine.panel)
    tile, lane = np.divmod(column, engine.lanes)
    group, place = np.divmod(k, engine.group)
    step, within = np.divmod(group, engine.groups_per_step)
    at = (step * engine.tiles + tile) * engine.groups_per_step + within
    at = (at * engine.lanes + lane) * engine.group + place
    np.testing.assert_array_equal(packed[panel, at], weight)


def gathered(engine: Engine, rows: int, depth: int, kept: int, outputs: int) -> Kernel:
    """The sums of ``kept`` depth groups, whose places are an input."""
    panels, size = engine.packed_shape(outputs, kept * engine.group)
    padded = engine.padded_rows(rows)
    inputs = (
        Operand("activations", (padded, engine.row_stride(depth)), engine.element),
        Operand("weights", (panels, size), engine.element),
        Operand("places", (kept,), "i32"),
    )
    element = "i32" if engine.precision == "int8" else "f32"

    def body(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> None:
        def place(n: Value) -> Value:
            return e.cast_index(e.load(buffers["places"], [n]), "index")

        def store(row: Value, sums: Any) -> None:
            for j, total in enumerate(sums):
                column = e.add(e.mul(panel, e.index(engine.panel)), e.index(engine.lanes * j))
                e.store_vector(total, buffers["sums"], [row, column])

        state = engine.prepare(e)
        for row in range(0, rows, engine.block_rows):
            block = Block(
                buffers["activations"],
                buffers["weights"],
                e.index(row),
                min(engine.block_rows, rows - row),
                panel,
                kept,
                place,
            )
            engine.multiply(e, state, block, store)
        engine.finish(e)

    output = Operand("sums", (rows, panels * engine.panel), element)
    return Kernel(f"gathered_{engine.label}", inputs, (output,), panels, body)


@pytest.mark.parametrize("name", PLACES)
def test_depth_groups_out_of_order(name: str) -> None:
    target = targets.get(name)
    rng = np.random.default_rng(7)
    rows, groups, kept, outputs = 13, 21, 9, 37
    cases, expected = [], []
    for engine in ALL_BLOCKS:
        if not isinstance(engine, InRegisters) or not set(engine.features) <= set(target.features):
            continue
        depth = groups * engine.group
        x = np.zeros((engine.padded_rows(rows), engine.row_stride(depth)), np.int64)
        x[:rows, :depth] = rng.integers(0, 128, (rows, depth))
        w = rng.integers(-127, 128, (outputs, kept * engine.group))
        places = rng.permutation(groups)[:kept].astype(np.int32)
        kernel = gathered(engine, rows, depth, kept, outputs)
        cases.append((kernel, [stored(x, engine), engine.pack(stored(w, engine)), places]))
        columns = (places[:, None] * engine.group + np.arange(engine.group)).ravel()
        expected.append(x[:rows, columns] @ w.T)
    assert cases
    for found, sums in zip(run_batch(cases, target), expected, strict=True):
        # All of these are whole numbers that f32 and bf16 hold.
        np.testing.assert_array_equal(found[:, :outputs], sums)
        assert not found[:, outputs:].any()


def kept(engine: Engine, rows: int, depth: int, outputs: int, element: str) -> Kernel:
    """The sums as the engine leaves them, in memory of ``element``, one panel a work-group."""
    panels, size = engine.packed_shape(outputs, depth)
    padded = engine.padded_rows(rows)
    inputs = (
        Operand("activations", (padded, engine.row_stride(depth)), engine.element),
        Operand("weights", (panels, size), engine.element),
    )
    groups = engine.padded_depth(depth) // engine.group

    def body(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> None:
        state = engine.prepare(e)
        for row in range(0, rows, engine.block_rows):
            many = min(engine.block_rows, rows - row)
            block = Block(
                buffers["activations"], buffers["weights"], e.index(row), many, panel, groups
            )
            column = e.mul(panel, e.index(engine.panel))
            engine.multiply_into(e, state, block, buffers["sums"], column)
        engine.finish(e)

    output = Operand("sums", (padded, panels * engine.panel * words_of(element)), element)
    return Kernel(f"kept_{element}_{engine.label}", inputs, (output,), panels, body)


@pytest.mark.parametrize("name", ["host", "arm64-i8mm"])
def test_sums_kept_as_they_are(name: str) -> None:
    target = targets.get(name)
    rng = np.random.default_rng(8)
    rows, depth, outputs = 37, 70, 41
    cases, expected = [], []
    for engine in ALL_BLOCKS:
        if not set(engine.features) <= set(target.features):
            continue
        x = np.zeros((engine.padded_rows(rows), engine.row_stride(depth)), np.int64)
        x[:rows, :depth] = rng.integers(0, 128, (rows, depth))
        w = rng.integers(-127, 128, (outputs, depth))
        for element in ("i32" if engine.precision == "int8" else "f32", engine.element):
            kernel = kept(engine, rows, depth, outputs, element)
            cases.append((kernel, [stored(x, engine), engine.pack(stored(w, engine))]))
            expected.append((engine, x[:rows, :depth] @ w.T))
    assert cases
    for found, (engine, sums) in zip(run_batch(cases, target), expected, strict=True):
        whole = found.view(np.int32 if engine.precision == "int8" else np.float32)[:rows]
        np.testing.assert_array_equal(whole[:, :outputs], sums)
        assert not whole[:, outputs:].any()


def stored(values: _Array, engine: Engine) -> _Array:
    if engine.precision == "int8":
        return values.astype(np.int8)
    if engine.precision == "bf16":
        narrow = to_bf16(values.astype(np.float32))
        np.testing.assert_array_equal(from_bf16(narrow), values)
        return narrow
    return values.astype(np.float32)
