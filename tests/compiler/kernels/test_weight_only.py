"""Stored weights: their format both ways, and every engine that multiplies by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import engines
from canao.compiler.kernels.epilogue import ACTIVATIONS, Epilogue
from canao.compiler.kernels.isa import isa_for
from canao.compiler.kernels.product import ProductShape
from canao.compiler.kernels.weight_format import GROUP, WeightFormat
from canao.compiler.kernels.weight_only import weight_only_kernel
from canao.compiler.kernels.weight_rows import MOST_ROWS, rows_engine
from canao.targets import Target

from ...profiles import compiling
from .batch import run_batch
from .product_cases import IDENTITY, Case, finished, from_bf16, to_bf16
from .test_products import EVERYWHERE

_Array = np.ndarray[Any, Any]
_ROUNDING = 2.0**-24

formats = st.builds(WeightFormat, st.sampled_from([4, 8]), st.sampled_from([4, 8, 16]))
few = st.integers(1, MOST_ROWS)
shapes = st.builds(
    ProductShape, st.one_of(few, st.integers(1, 45)), st.integers(1, 150), st.integers(1, 110)
)
epilogues = st.builds(
    Epilogue,
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    output=st.sampled_from(["f32", "bf16"]),
)


def drawn(rng: np.random.Generator, form: WeightFormat, outputs: int, depth: int) -> list[_Array]:
    """Codes [outputs, depth] and scales, the extreme ones often."""
    low, high = (-8, 7) if form.bits == 4 else (-128, 127)
    codes = rng.integers(low, high + 1, (outputs, depth)).astype(np.int8)
    extremes = rng.random(codes.shape) < rng.choice([0.0, 0.3])
    codes[extremes] = rng.choice([low, high], extremes.sum())
    groups = form.groups(depth) if form.bits == 4 else 1
    scales = rng.uniform(-0.1, 0.1, (outputs, groups)).astype(np.float32)
    return [codes, to_bf16(scales) if form.bits == 4 else scales]


@given(formats, st.integers(1, 40), st.integers(1, 100), st.integers(0, 2**32))
def test_what_is_packed_is_unpacked(form: WeightFormat, n: int, depth: int, seed: int) -> None:
    codes, scales = drawn(np.random.default_rng(seed), form, n, depth)
    words, packed = form.pack(codes), form.pack_scales(scales)
    assert words.shape == form.words_shape(n, depth)
    assert words.dtype == np.int32
    assert packed.shape == form.scales_shape(n, depth)
    np.testing.assert_array_equal(form.unpack(words, n, depth), codes)
    np.testing.assert_array_equal(form.unpack_scales(packed, n), scales)
    assert words.nbytes * 8 <= form.bits * (n + form.lanes) * (depth + GROUP)


def test_where_a_code_stands() -> None:
    form = WeightFormat(4, 8)
    codes = np.zeros((20, 70), np.int8)
    codes[11, 13] = -3
    words = form.pack(codes)
    (place,) = np.argwhere(words)
    assert place.tolist() == [11 // 8, 13 // 8 * 8 + 11 % 8]
    assert words[tuple(place)] == (-3 & 15) << 4 * (13 % 8)


@st.composite
def products(draw: st.DrawFn, target: Target) -> tuple[ProductShape, list[Engine]]:
    """A product, the engine for its rows if they are few, and one that takes any number."""
    shape = draw(shapes)
    direct = rows_engine(target.features, shape.rows)
    lanes = isa_for(target.features).lanes
    found = [one for p in ("f32", "bf16") for one in engines(target.features, p)]
    other = draw(st.sampled_from([one for one in found if one.lanes == lanes]))
    return shape, [*([direct] if direct else []), other]


def case(
    engine: Engine, form: WeightFormat, shape: ProductShape, epilogue: Epilogue, seed: int
) -> Case:
    """With `IDENTITY` each row picks one input: weights must come out to the bit."""
    rng = np.random.default_rng(seed)
    rows, depth, outputs = shape.rows, shape.depth, shape.outputs
    codes, scales = drawn(rng, form, outputs, depth)
    words, packed = form.pack(codes), form.pack_scales(scales)
    weight = form.dequantised(words, packed, outputs, depth)
    x = np.zeros((engine.padded_rows(rows), engine.row_stride(depth)), np.float32)
    if epilogue == IDENTITY:
        x[np.arange(rows), rng.integers(0, depth, rows)] = 1
    else:
        x[:rows, :depth] = rng.standard_normal((rows, depth))
    activations = x
    if engine.precision == "bf16":
        activations, weight = to_bf16(x), from_bf16(to_bf16(weight))
        x = from_bf16(activations)
    x = x[:rows, :depth].astype(np.float64)
    value = x @ weight.T.astype(np.float64)
    sizes = np.abs(x) @ np.abs(weight.T).astype(np.float64)
    error = sizes * (depth + 8) * 2 * _ROUNDING if epilogue != IDENTITY else np.zeros_like(value)
    arguments = [activations, words, packed]
    value, error = finished(rng, arguments, value, error, epilogue)
    native = engine.lanes == 16 and "avx512bf16" in targets.get("host").features
    kernel = weight_only_kernel(engine, form, shape, epilogue, native_bf16=native)
    return Case(kernel, arguments, value, error)


def check(target: Target, data: st.DataObject, epilogue: Epilogue, seed: int) -> None:
    shape, found = data.draw(products(target))
    bits = data.draw(st.sampled_from([4, 8]))
    cases = [
        case(engine, WeightFormat(bits, engine.lanes), shape, one, seed)
        for engine in found
        for one in (epilogue, IDENTITY)
    ]
    results = run_batch([(case.kernel, case.arguments) for case in cases], target)
    for one, result in zip(cases, results, strict=True):
        one.check(result)


@pytest.mark.parametrize("name", EVERYWHERE)
@compiling(2)
@given(data=st.data(), epilogue=epilogues, seed=st.integers(0, 2**32))
def test_products(name: str, data: st.DataObject, epilogue: Epilogue, seed: int) -> None:
    check(EVERYWHERE[name], data, epilogue, seed)


def test_engines_of_other_weights_are_refused() -> None:
    (found, *_) = engines(("avx512f", "avx512vnni"), "int8")
    shape = ProductShape(8, 64, 64)
    with pytest.raises(ValueError, match="cannot multiply"):
        weight_only_kernel(found, WeightFormat(8, 16), shape, IDENTITY)
    with pytest.raises(ValueError, match="3 bits"):
        dataclasses.replace(WeightFormat(8, 16), bits=3)
