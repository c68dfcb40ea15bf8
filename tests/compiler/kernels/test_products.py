"""Every engine's product against NumPy: tails in every dimension, every epilogue."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES
from canao.compiler.kernels.epilogue import ACTIVATIONS, Epilogue
from canao.compiler.kernels.product import ProductShape
from canao.targets import Target, machine_arch

from ...profiles import compiling
from .batch import ARM, run_batch
from .extreme_cases import KINDS, extreme_case
from .product_cases import IDENTITY, product_case

HOST = targets.get("host")
# The same machine as one without AVX-512: another choice of instructions.
_NARROW = tuple(f for f in HOST.features if not f.startswith(("avx512", "amx")))
NARROW = dataclasses.replace(HOST, features=_NARROW)
EVERYWHERE = {
    "host": HOST,
    **({"avx2": NARROW} if HOST.features != _NARROW else {}),
    **{name: targets.get(name) for name in ARM},
}

shapes = st.builds(ProductShape, st.integers(1, 45), st.integers(1, 200), st.integers(1, 110))
epilogues = st.builds(
    Epilogue,
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    output=st.sampled_from(["f32", "bf16"]),
    accurate=st.booleans(),
)
seeds = st.integers(0, 2**32)


def kinds(target: Target) -> list[type[Engine]]:
    return [kind for kind in ENGINES if set(kind.features) <= set(target.features)]


@st.composite
def blocks(draw: st.DrawFn, target: Target) -> list[Engine]:
    """Each engine of a target with one of its blocks, perhaps with fewer rows."""
    found = []
    for kind in kinds(target):
        tiles, most = draw(st.sampled_from(sorted(kind.blocks.items())))
        rows = draw(st.integers(1, most // kind.row_multiple)) * kind.row_multiple
        found.append(kind(rows, tiles))
    return found


def check(
    target: Target,
    engines: Sequence[Engine],
    shape: ProductShape,
    epilogue: Epilogue,
    seed: int,
) -> None:
    """With the epilogue that is drawn, and with the one that hides no bit of a sum."""
    cases = [
        product_case(engine, shape, one, seed)
        for engine in engines
        for one in (epilogue, IDENTITY)
    ]
    results = run_batch([(case.kernel, case.arguments) for case in cases], target)
    for case, found in zip(cases, results, strict=True):
        case.check(found)


@pytest.mark.parametrize("name", EVERYWHERE)
@compiling(2)
@given(data=st.data(), shape=shapes, epilogue=epilogues, seed=seeds)
def test_products(
    name: str, data: st.DataObject, shape: ProductShape, epilogue: Epilogue, seed: int
) -> None:
    target = EVERYWHERE[name]
    check(target, data.draw(blocks(target)), shape, epilogue, seed)


def check_extremes(
    target: Target,
    engines: Sequence[Engine],
    shape: ProductShape,
    epilogue: Epilogue,
    kinds: Sequence[str],
    seed: int,
) -> None:
    # Narrowed as models are: the instruction has a way of its own with NaN and denormals.
    epilogue = dataclasses.replace(epilogue, native_bf16="avx512bf16" in target.features)
    cases = [
        extreme_case(engine, shape, one, kinds, seed)
        for engine in engines
        if engine.precision != "int8"
        for one in (epilogue, IDENTITY)
    ]
    both = [(case.kernel, one) for case in cases for one in (case.arguments, case.quiet)]
    results = run_batch(both, target)
    for case, found, quiet in zip(cases, results[::2], results[1::2], strict=True):
        case.check(found, quiet)


# Every kind of row beside every other, in some order.
orders = st.permutations(KINDS)
many_rows = st.builds(
    ProductShape, st.integers(len(KINDS), 45), st.integers(1, 90), st.integers(1, 70)
)


@pytest.mark.parametrize("name", EVERYWHERE)
@compiling(4)
@given(data=st.data(), shape=many_rows, epilogue=epilogues, kinds=orders, seed=seeds)
def test_extreme_rows(
    name: str,
    data: st.DataObject,
    shape: ProductShape,
    epilogue: Epilogue,
    kinds: list[str],
    seed: int,
) -> None:
    target = EVERYWHERE[name]
    check_extremes(target, data.draw(blocks(target)), shape, epilogue, kinds, seed)


def test_engines_that_must_be_tried() -> None:
    """What runs above follows the machine; this much must be there where CI is set."""
    tried = {kind.name for kind in kinds(HOST)}
    assert {kind.name for name in ARM for kind in kinds(targets.get(name))} == {
        "neon_f32",
        "neon_int8",
        "neon_matrix_int8",
        "neon_matrix_bf16",
    }
    least = {
        "x86_64": {"avx2_f32", "avx2_int8"},
        "aarch64": {"neon_f32", "neon_int8"},
    }.get(machine_arch(), set())
    if os.environ.get("CI"):
        assert tried >= least
    elif not tried >= least:
        pytest.skip(f"this machine lacks {sorted(least - tried)}")
