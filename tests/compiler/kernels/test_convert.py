"""Rows to bf16: to nearest even, by the instruction and by integer arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.convert import convert_kernel, convert_reference
from canao.compiler.kernels.trial import build, program

from ...profiles import compiling
from .support import load_kernel

HAS_NATIVE = "avx512bf16" in targets.get("host").features


@compiling()
@given(
    st.integers(1, 40),
    st.integers(1, 150),
    st.sampled_from([4, 8, 16]),
    st.booleans(),
    st.integers(0, 100),
    st.integers(0, 2**31),
)
def test_any_shape(
    rows: int, depth: int, lanes: int, native: bool, padding: int, seed: int
) -> None:
    native = native and HAS_NATIVE
    stride = depth + padding
    call = load_kernel(
        convert_kernel(
            rows, depth, lanes=lanes, native=native, padded_rows=rows + 3, row_stride=stride
        )
    )
    rng = np.random.default_rng(seed)
    shape = (rows, depth)
    ties = (rng.integers(0, 2**15, shape) << 16 | 0x8000).astype(np.uint32).view(np.float32)
    sets = [
        rng.standard_normal(shape).astype(np.float32),
        (rng.standard_normal(shape) * 10.0 ** rng.uniform(-30, 38, shape)).astype(np.float32),
        np.where(np.isfinite(ties) & (np.abs(ties) > 1e-37), ties, np.float32(np.inf)),
        rng.choice([0.0, -0.0, np.inf, -np.inf, 3.4e38], shape).astype(np.float32),
    ]
    for x in sets:
        (found,) = call([x])
        np.testing.assert_array_equal(found[:rows, :depth], convert_reference(x))
        assert not found[:rows, depth:].any()


@pytest.mark.parametrize("native", [False, True])
def test_nan_stays_nan(native: bool) -> None:
    x = np.full((1, 16), np.nan, np.float32)
    (found,) = load_kernel(convert_kernel(1, 16, lanes=16, native=native and HAS_NATIVE))([x])
    assert np.isnan((found.astype(np.uint16).astype(np.uint32) << 16).view(np.float32)).all()


def test_compiles_for_arm(tmp_path: Path) -> None:
    kernel = convert_kernel(35, 50, lanes=4)
    build(program(kernel), targets.get("arm64"), tmp_path / "kernel.vmfb")


def test_names_tell_kernels_apart() -> None:
    kernels = [
        convert_kernel(rows, 30, lanes=lanes, native=native, row_stride=stride)
        for rows in (3, 35)
        for stride in (30, 64)
        for lanes in (8, 16)
        for native in (False, True)
    ]
    texts = {kernel.name: kernel.declaration() for kernel in kernels}
    assert len(texts) == len(kernels) == len(set(texts.values()))
