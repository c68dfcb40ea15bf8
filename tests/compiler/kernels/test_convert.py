"""Rows to bf16: to nearest even, by the instruction and by integer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.convert import convert_kernel, convert_reference
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.trial import build, program

from ...profiles import compiling
from .batch import PLACES, run_batch

_Array = np.ndarray[Any, Any]

HAS_NATIVE = "avx512bf16" in targets.get("host").features


@dataclass(frozen=True)
class Case:
    """A kernel's parameters, and its numbers by a seed."""

    rows: int
    depth: int
    lanes: int
    native: bool
    padding: int
    seed: int

    def kernel(self, name: str) -> Kernel:
        return convert_kernel(
            self.rows,
            self.depth,
            lanes=self.lanes,
            native=self.native and name == "host" and HAS_NATIVE,
            padded_rows=self.rows + 3,
            row_stride=self.depth + self.padding,
        )

    def numbers(self) -> list[_Array]:
        rng = np.random.default_rng(self.seed)
        shape = (self.rows, self.depth)
        ties = (rng.integers(0, 2**15, shape) << 16 | 0x8000).astype(np.uint32).view(np.float32)
        return [
            rng.standard_normal(shape).astype(np.float32),
            (rng.standard_normal(shape) * 10.0 ** rng.uniform(-30, 38, shape)).astype(np.float32),
            np.where(np.isfinite(ties) & (np.abs(ties) > 1e-37), ties, np.float32(np.inf)),
            rng.choice([0.0, -0.0, np.inf, -np.inf, 3.4e38], shape).astype(np.float32),
        ]

    def check(self, x: _Array, found: _Array) -> None:
        np.testing.assert_array_equal(found[: self.rows, : self.depth], convert_reference(x))
        assert not found[: self.rows, self.depth :].any()


cases = st.builds(
    Case,
    rows=st.integers(1, 40),
    depth=st.integers(1, 150),
    lanes=st.sampled_from([4, 8, 16]),
    native=st.booleans(),
    padding=st.integers(0, 100),
    seed=st.integers(0, 2**31),
)


@pytest.mark.parametrize("name", PLACES)
@compiling(3)
@given(st.lists(cases, min_size=3, max_size=3))
def test_any_shape(name: str, drawn: list[Case]) -> None:
    batch = [(case, x) for case in drawn for x in case.numbers()]
    results = run_batch([(case.kernel(name), [x]) for case, x in batch], targets.get(name))
    for (case, x), found in zip(batch, results, strict=True):
        case.check(x, found)


@pytest.mark.parametrize(
    ("name", "native"), [(name, False) for name in PLACES] + [("host", HAS_NATIVE)]
)
def test_nan_stays_nan(name: str, native: bool) -> None:
    # Those of the last bits alone would round to infinity, or beyond the sign.
    bits = [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF]
    x = np.resize(np.array(bits, np.uint32), (1, 24)).view(np.float32)
    kernel = convert_kernel(1, 24, lanes=16, native=native)
    (found,) = run_batch([(kernel, [x])], targets.get(name))
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
