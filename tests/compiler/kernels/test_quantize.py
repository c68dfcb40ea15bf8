"""Quantised rows: bit for bit as in NumPy, for every shape, scheme and kind of number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.quantize import Form, Scheme, quantize_kernel
from canao.compiler.kernels.quantize_reference import quantize_reference
from canao.compiler.kernels.trial import build, program

from ...profiles import compiling
from .batch import PLACES, outputs_of

_Array = np.ndarray[Any, Any]
WAYS: list[tuple[Scheme, Form]] = [
    ("asymmetric", "u8"),
    ("asymmetric", "s8"),
    ("symmetric", "s8"),
    ("symmetric", "u8"),
    ("static", "u8"),
    ("static", "s8"),
]
SMALLEST = float(np.finfo(np.float32).tiny)  # what is smaller is denormal
STATIC = (0.037, -1.25)


def value_sets(rows: int, depth: int, seed: int) -> list[_Array]:
    """Matrices of every kind, for one compiled kernel."""
    rng = np.random.default_rng(seed)
    shape = (rows, depth)
    normal = rng.standard_normal(shape)
    sizes = 10.0 ** rng.uniform(-38, 38, shape)
    special = rng.choice([0.0, 1.0, -3.0, np.inf, -np.inf, np.nan], shape)
    shifted = 1000.0 + rng.integers(0, 4, shape) * 2.0**-10
    sets = [
        normal,
        normal * sizes,
        normal * 1e-40,
        normal * 1e-37,
        np.where(rng.random(shape) < 0.5, 1e-38, 1e-29) * normal,
        np.zeros(shape),
        np.broadcast_to(normal[:, :1] * 1e3, shape),
        rng.choice([-1.0, 1.0], shape) * float(np.finfo(np.float32).max),
        rng.integers(-300, 300, shape) / 2.0,
        shifted,
        special,
        np.where(rng.random(shape) < 0.05, special, normal),
    ]
    with np.errstate(over="ignore"):
        return [values.astype(np.float32) for values in sets]


@dataclass(frozen=True)
class Case:
    """A kernel's parameters, and its numbers by a seed."""

    way: tuple[Scheme, Form]
    rows: int
    depth: int
    lanes: int
    padding: int
    smoothing: bool
    seed: int

    def kernel(self) -> Kernel:
        scheme, form = self.way
        return quantize_kernel(
            self.rows,
            self.depth,
            lanes=self.lanes,
            form=form,
            scheme=scheme,
            smoothing=self.smoothing,
            padded_rows=-(-self.rows // 16) * 16,
            row_stride=self.depth + self.padding,
        )

    def arguments(self) -> list[list[_Array]]:
        others = []
        if self.smoothing:
            others.append(np.random.default_rng(self.seed).uniform(0.1, 4.0, self.depth))
        if self.way[0] == "static":
            others.append(np.array(STATIC))
        others = [one.astype(np.float32) for one in others]
        return [[x, *others] for x in value_sets(self.rows, self.depth, self.seed)]

    def check(self, arguments: Sequence[_Array], codes: _Array, scales: _Array) -> None:
        (scheme, form), (x, *others) = self.way, arguments
        if self.smoothing:
            with np.errstate(over="ignore"):
                x = np.where(np.abs(x) < SMALLEST, np.float32(0.0), x) * others[0]
        static = STATIC if scheme == "static" else None
        expected, expected_scales = quantize_reference(x, form=form, scheme=scheme, static=static)
        found = codes[: self.rows, : self.depth].view(expected.dtype)
        np.testing.assert_array_equal(found, expected)
        # Equal but for denormal results, which may be flushed.
        np.testing.assert_allclose(scales[: self.rows], expected_scales, rtol=0, atol=SMALLEST)
        assert not codes[: self.rows, self.depth :].any()


def cases(way: tuple[Scheme, Form]) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        way=st.just(way),
        rows=st.integers(1, 40),
        depth=st.integers(1, 150),
        lanes=st.sampled_from([4, 8, 16]),
        padding=st.integers(0, 200),
        smoothing=st.booleans(),
        seed=st.integers(0, 2**31),
    )


@pytest.mark.parametrize("name", PLACES)
@compiling(len(WAYS))
@given(st.tuples(*map(cases, WAYS)))
def test_any_shape(name: str, drawn: tuple[Case, ...]) -> None:
    batch = [(case, arguments) for case in drawn for arguments in case.arguments()]
    results = outputs_of([(c.kernel(), arguments) for c, arguments in batch], targets.get(name))
    for (case, arguments), (codes, scales) in zip(batch, results, strict=True):
        case.check(arguments, codes, scales)


@pytest.mark.parametrize(("scheme", "form"), WAYS[:4])
def test_codes_lie_within_half_a_step(scheme: Scheme, form: Form) -> None:
    x = np.random.default_rng(0).standard_normal((64, 384)).astype(np.float32)
    codes, scales = quantize_reference(x, form=form, scheme=scheme)
    back = codes * scales[:, :1].astype(np.float64) + scales[:, 1:]
    assert (np.abs(back - x) <= scales[:, :1] * 0.5001).all()


@pytest.mark.parametrize("form", ["u8", "s8"])
def test_constant_rows_are_exact(form: Form) -> None:
    x = np.full((2, 5), 0.1, np.float32)
    _, scales = quantize_reference(x, form=form)
    np.testing.assert_array_equal(scales, [[0.0, np.float32(0.1)]] * 2)


def test_rows_do_not_affect_each_other() -> None:
    x = np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)
    codes, scales = quantize_reference(x)
    x[1] = np.inf, *[np.nan] * 39
    found_codes, found_scales = quantize_reference(x)
    np.testing.assert_array_equal(found_codes[[0, 2]], codes[[0, 2]])
    np.testing.assert_array_equal(found_scales[[0, 2]], scales[[0, 2]])


def test_static_codes_saturate() -> None:
    x = np.array([[-1e9, 0.0, 1e9]], np.float32)
    codes, _ = quantize_reference(x, form="s8", scheme="static", static=(1.0, 0.0))
    np.testing.assert_array_equal(codes, [[-128, 0, 127]])


@pytest.mark.parametrize(("scheme", "form"), WAYS)
def test_compiles_for_arm(scheme: Scheme, form: Form, tmp_path: Path) -> None:
    kernel = quantize_kernel(35, 50, lanes=4, form=form, scheme=scheme)
    build(program(kernel), targets.get("arm64"), tmp_path / "kernel.vmfb")


def test_names_tell_kernels_apart() -> None:
    kernels = [
        quantize_kernel(rows, depth, lanes=lanes, form=form, scheme=scheme, row_stride=stride)
        for rows in (3, 35)
        for depth, stride in ((8, 8), (8, 64), (64, 64))
        for lanes in (4, 16)
        for scheme, form in WAYS
    ]
    texts = {kernel.name: kernel.declaration() for kernel in kernels}
    assert len(texts) == len(kernels) == len(set(texts.values()))


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="fit"):
        quantize_kernel(1, 4, lanes=4, row_stride=3)
