"""LayerNorm and RMSNorm against float64; their codes are those of the y that they computed."""

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
from canao.compiler.kernels.convert import convert_reference
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.normalize import (
    Flavour,
    Output,
    layer_norm_kernel,
    layer_norm_reference,
)
from canao.compiler.kernels.quantize import Form, Scheme
from canao.compiler.kernels.quantize_reference import quantize_reference
from canao.compiler.kernels.trial import build, program
from canao.targets import Target

from ...profiles import compiling
from .batch import PLACES, outputs_of

_Array = np.ndarray[Any, Any]
HAS_NATIVE = "avx512bf16" in targets.get("host").features
STATIC = (0.03, -2.0)
EPS = 1e-5
WAYS: list[tuple[Scheme, Form]] = [
    ("asymmetric", "u8"),
    ("asymmetric", "s8"),
    ("symmetric", "s8"),
    ("symmetric", "u8"),
    ("static", "u8"),
]
OUTPUTS: list[tuple[Output, ...]] = [
    ("f32",),
    ("f32", "q"),
    ("q", "f32"),
    ("f32", "bf16"),
    ("f32", "q", "bf16"),
]


def value_sets(rows: int, depth: int, seed: int) -> list[_Array]:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, depth))
    sets = [
        normal,
        normal + 300.0,
        normal * 1e-6,
        normal * 1e-40,
        normal * 1e15,
        np.zeros((rows, depth)),
        np.broadcast_to(normal[:, :1] * 10.0, normal.shape),
    ]
    return [values.astype(np.float32) for values in sets]


def tolerance(x: _Array, gamma: _Array, eps: float, flavour: Flavour) -> _Array:
    """Roundings of v, of its mean and of the sums, each as large as the division makes them."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True) if flavour == "layer" else wide
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    size = np.abs(wide).max(1, keepdims=True) / deviation
    return (size * 2e-6 + np.abs(centred) / deviation * 2e-6) * np.abs(gamma) + 1e-6


@dataclass(frozen=True)
class Case:
    """A kernel's parameters, and its numbers by a seed."""

    outputs: tuple[Output, ...]
    rows: int
    depth: int
    lanes: int
    flavour: Flavour
    has_residual: bool
    has_beta: bool
    smoothing: bool
    way: tuple[Scheme, Form]
    seed: int

    def kernel(self, name: str) -> Kernel:
        scheme, form = self.way
        return layer_norm_kernel(
            self.rows,
            self.depth,
            lanes=self.lanes,
            eps=EPS,
            flavour=self.flavour,
            residual=self.has_residual,
            beta=self.has_beta,
            outputs=self.outputs,
            scheme=scheme,
            form=form,
            smoothing=self.smoothing,
            native_bf16=HAS_NATIVE and name == "host",
            padded_rows=-(-self.rows // 16) * 16,
            row_stride=self.depth + self.seed % 70,
        )

    def numbers(self) -> list[dict[str, _Array]]:
        """By the names of operands, whether there are such or not."""
        rng = np.random.default_rng(self.seed)
        gamma, beta = rng.standard_normal((2, self.depth)).astype(np.float32)
        others = {
            "gamma": gamma,
            "beta": beta,
            "smoothing": rng.uniform(0.1, 4.0, self.depth).astype(np.float32),
            "static": np.array(STATIC, np.float32),
        }
        return [
            {"X": x, "residual": np.flip(x, 0) * np.float32(0.7), **others}
            for x in value_sets(self.rows, self.depth, self.seed)
        ]

    def check(self, numbers: dict[str, _Array], results: dict[str, _Array]) -> None:
        """Raise `AssertionError` where the results are not right."""
        rows, depth = self.rows, self.depth
        x, gamma, y = numbers["X"], numbers["gamma"], results["Y"]
        residual = numbers["residual"] if self.has_residual else None
        expected = layer_norm_reference(
            x,
            gamma,
            numbers["beta"] if self.has_beta else None,
            eps=EPS,
            flavour=self.flavour,
            residual=residual,
        )
        summed = x if residual is None else x + residual
        assert (np.abs(y - expected) <= tolerance(summed, gamma, EPS, self.flavour)).all()
        if "Q" in results:
            scheme, form = self.way
            static = STATIC if scheme == "static" else None
            smooth = y * numbers["smoothing"] if self.smoothing else y
            codes, scales = quantize_reference(smooth, form=form, scheme=scheme, static=static)
            np.testing.assert_array_equal(results["Q"][:rows, :depth].view(codes.dtype), codes)
            np.testing.assert_allclose(results["S"][:rows], scales, rtol=0, atol=1.2e-38)
            assert not results["Q"][:rows, depth:].any()
        if "B" in results:
            np.testing.assert_array_equal(results["B"][:rows, :depth], convert_reference(y))
            assert not results["B"][:rows, depth:].any()


def cases(outputs: tuple[Output, ...]) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        outputs=st.just(outputs),
        rows=st.integers(1, 40),
        depth=st.integers(1, 150),
        lanes=st.sampled_from([4, 8, 16]),
        flavour=st.sampled_from(["layer", "rms"]),
        has_residual=st.booleans(),
        has_beta=st.booleans(),
        smoothing=st.booleans(),
        way=st.sampled_from(WAYS),
        seed=st.integers(0, 2**31),
    )


def named(
    batch: Sequence[tuple[Kernel, dict[str, _Array]]], target: Target
) -> list[dict[str, _Array]]:
    """The outputs of kernels by their operands' names, from inputs by theirs."""
    results = outputs_of(
        [(kernel, [given_[o.name] for o in kernel.inputs]) for kernel, given_ in batch], target
    )
    return [
        {o.name: value for o, value in zip(kernel.outputs, found, strict=True)}
        for (kernel, _), found in zip(batch, results, strict=True)
    ]


@pytest.mark.parametrize("name", PLACES)
@compiling(len(OUTPUTS))
@given(st.tuples(*map(cases, OUTPUTS)))
def test_any_shape(name: str, drawn: tuple[Case, ...]) -> None:
    batch = [(case, numbers) for case in drawn for numbers in case.numbers()]
    results = named([(c.kernel(name), numbers) for c, numbers in batch], targets.get(name))
    for (case, numbers), found in zip(batch, results, strict=True):
        case.check(numbers, found)


@pytest.mark.parametrize("name", PLACES)
def test_results_without_f32(name: str) -> None:
    """They are those of the same kernel with f32, however much memory a row takes."""
    ways: list[tuple[Output, ...]] = [("f32", "q", "bf16"), ("q",), ("bf16", "q"), ("bf16",)]
    batch = []
    for depth in (40, 10000):
        given_ = {
            "X": np.random.default_rng(0).standard_normal((5, depth)).astype(np.float32),
            "gamma": np.linspace(0.5, 2.0, depth, dtype=np.float32),
            "beta": np.ones(depth, np.float32),
        }
        for outputs in ways:
            kernel = layer_norm_kernel(5, depth, lanes=16, eps=1e-12, outputs=outputs)
            batch.append((kernel, given_))
    results = named(batch, targets.get(name))
    for start in (0, len(ways)):
        all_of_them, *others = results[start : start + len(ways)]
        for found in others:
            assert "Y" not in found
            for operand, value in found.items():
                np.testing.assert_array_equal(value, all_of_them[operand])


@pytest.mark.parametrize("name", PLACES)
def test_a_row_that_is_not_finite_affects_no_other(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    vectors = [np.ones(50, np.float32), np.zeros(50, np.float32)]
    kernel = layer_norm_kernel(4, 50, lanes=16, eps=1e-12, outputs=("f32", "q"))
    spoiled = x.copy()
    spoiled[1, 3], spoiled[2, 49] = np.nan, np.inf
    batch = [(kernel, [x, *vectors]), (kernel, [spoiled, *vectors])]
    expected, (y, codes, scales) = outputs_of(batch, targets.get(name))
    assert np.isnan(y[1:3]).all()
    assert np.isnan(scales[1:3, 1]).all()
    for found, before in zip((y, codes, scales), expected, strict=True):
        np.testing.assert_array_equal(found[[0, 3]], before[[0, 3]])


@pytest.mark.parametrize("outputs", [("f32", "q"), ("q",), ("bf16",)])
def test_compiles_for_arm(outputs: tuple[Output, ...], tmp_path: Path) -> None:
    kernel = layer_norm_kernel(35, 50, lanes=4, eps=1e-12, outputs=outputs, residual=True)
    build(program(kernel), targets.get("arm64"), tmp_path / "kernel.vmfb")


def test_names_tell_kernels_apart() -> None:
    flavours: list[Flavour] = ["layer", "rms"]
    kernels = [
        layer_norm_kernel(
            rows,
            30,
            lanes=lanes,
            eps=eps,
            flavour=flavour,
            residual=flag,
            beta=beta,
            outputs=outputs,
            native_bf16=native,
        )
        for rows in (3, 35)
        for lanes in (8, 16)
        for eps in (1e-12, 1e-5)
        for flavour in flavours
        for flag in (False, True)
        for beta in (False, True)
        for outputs, native in ((("f32",), False), (("f32", "bf16"), True), (("bf16",), False))
    ]
    texts = {kernel.name: kernel.declaration() for kernel in kernels}
    assert len(texts) == len(kernels) == len(set(texts.values()))


def test_refuses_no_output() -> None:
    with pytest.raises(ValueError, match="at least one"):
        layer_norm_kernel(1, 4, lanes=4, eps=1e-5, outputs=())
