"""Block-sparse products against NumPy: every engine, epilogue and pattern, tails everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES
from canao.compiler.kernels.epilogue import ACTIVATIONS, Epilogue
from canao.compiler.kernels.product import ProductShape
from canao.compiler.kernels.sparse_tiles import SparseTiles
from canao.compiler.kernels.words import words_kernel
from canao.targets import Target

from ...profiles import compiling
from .batch import ARM, run_batch
from .product_cases import IDENTITY
from .sparse_cases import PATTERNS, sparse_case, words

HOST = targets.get("host")
_TILE_FEATURES = {"int8": "amx-int8", "bf16": "amx-bf16"}

shapes = st.builds(ProductShape, st.integers(1, 75), st.integers(1, 200), st.integers(1, 110))
epilogues = st.builds(
    Epilogue,
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    output=st.sampled_from(["f32", "bf16"]),
    accurate=st.booleans(),
)


@st.composite
def engines(draw: st.DrawFn, target: Target) -> list[Engine | SparseTiles]:
    """Each engine of a target with one of its blocks."""
    found: list[Engine | SparseTiles] = []
    for kind in ENGINES:
        if set(kind.features) <= set(target.features) and not kind.name.startswith("amx"):
            tiles, most = draw(st.sampled_from(sorted(kind.blocks.items())))
            rows = draw(st.integers(1, most // kind.row_multiple)) * kind.row_multiple
            found.append(kind(rows, tiles))
    for precision, feature in _TILE_FEATURES.items():
        if feature in target.features:
            found.append(SparseTiles(precision, draw(st.sampled_from([1, 2, 3]))))
    return found


def check(
    data: st.DataObject,
    target: Target,
    shape: ProductShape,
    epilogue: Epilogue,
    seed: int,
) -> None:
    cases = [
        sparse_case(engine, shape, one, data.draw(st.sampled_from(PATTERNS)), seed)
        for engine in data.draw(engines(target))
        for one in (epilogue, IDENTITY)
    ]
    results = run_batch([(case.kernel, case.arguments) for case in cases], target)
    for case, found in zip(cases, results, strict=True):
        case.check(found)


@compiling(2)
@given(data=st.data(), shape=shapes, epilogue=epilogues, seed=st.integers(0, 2**32))
def test_sparse_products_here(
    data: st.DataObject, shape: ProductShape, epilogue: Epilogue, seed: int
) -> None:
    check(data, HOST, shape, epilogue, seed)


@pytest.mark.parametrize("name", ARM)
@compiling(2)
@given(data=st.data(), shape=shapes, epilogue=epilogues, seed=st.integers(0, 2**32))
def test_sparse_products_on_arm(
    name: str, data: st.DataObject, shape: ProductShape, epilogue: Epilogue, seed: int
) -> None:
    check(data, targets.get(name), shape, epilogue, seed)


def test_every_pattern() -> None:
    """Two panels and a tail, empty ones among them, each pattern in one module."""
    shape = ProductShape(40, 68, 104)
    found: list[Engine | SparseTiles] = [
        kind()
        for kind in ENGINES
        if set(kind.features) <= set(HOST.features) and not kind.name.startswith("amx")
    ]
    found += [SparseTiles(p) for p, feature in _TILE_FEATURES.items() if feature in HOST.features]
    cases = [sparse_case(e, shape, IDENTITY, p, 1) for e in found for p in PATTERNS]
    results = run_batch([(case.kernel, case.arguments) for case in cases], HOST)
    for case, result in zip(cases, results, strict=True):
        case.check(result)


@pytest.mark.parametrize(("element", "kind"), [("i8", np.int8), ("i16", np.int16)])
def test_words(element: str, kind: Any) -> None:
    rng = np.random.default_rng(0)
    for rows, block in ((16, 32), (80, 32), (144, 64)):
        x = rng.integers(-100, 100, (rows, 192)).astype(kind)
        (found,) = run_batch([(words_kernel(rows, 192, element, block), [x])], HOST)
        expected = words(x, block)
        flat = found.transpose(0, 2, 1).reshape(-1, found.shape[1])[:rows]
        np.testing.assert_array_equal(
            flat, expected.transpose(0, 2, 1).reshape(-1, found.shape[1])[:rows]
        )
