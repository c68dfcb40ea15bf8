"""LayerNorm and RMSNorm against float64; their codes are those of the y that they computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.convert import convert_reference
from canao.compiler.kernels.normalize import (
    Flavour,
    Output,
    layer_norm_kernel,
    layer_norm_reference,
)
from canao.compiler.kernels.quantize import Form, Scheme
from canao.compiler.kernels.quantize_reference import quantize_reference
from canao.compiler.kernels.trial import build, program

from ...profiles import compiling
from .support import load_kernel

_Array = np.ndarray[Any, Any]
HAS_NATIVE = "avx512bf16" in targets.get("host").features
STATIC = (0.03, -2.0)
WAYS: list[tuple[Scheme, Form]] = [
    ("asymmetric", "u8"),
    ("asymmetric", "s8"),
    ("symmetric", "s8"),
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
    sets = [normal, normal + 300.0, normal * 1e-6, normal * 1e15, np.zeros((rows, depth))]
    return [values.astype(np.float32) for values in sets]


def tolerance(x: _Array, gamma: _Array, eps: float, flavour: Flavour) -> _Array:
    """Roundings of v, of its mean and of the sums, each as large as the division makes them."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True) if flavour == "layer" else wide
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    size = np.abs(wide).max(1, keepdims=True) / deviation
    return (size * 2e-6 + np.abs(centred) / deviation * 2e-6) * np.abs(gamma) + 1e-6


@compiling()
@given(
    st.integers(1, 40),
    st.integers(1, 150),
    st.sampled_from([4, 8, 16]),
    st.sampled_from(["layer", "rms"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(OUTPUTS),
    st.sampled_from(WAYS),
    st.integers(0, 2**31),
)
def test_any_shape(
    rows: int,
    depth: int,
    lanes: int,
    flavour: Flavour,
    has_residual: bool,
    has_beta: bool,
    outputs: tuple[Output, ...],
    way: tuple[Scheme, Form],
    seed: int,
) -> None:
    scheme, form = way
    eps = 1e-5
    kernel = layer_norm_kernel(
        rows,
        depth,
        lanes=lanes,
        eps=eps,
        flavour=flavour,
        residual=has_residual,
        beta=has_beta,
        outputs=outputs,
        scheme=scheme,
        form=form,
        native_bf16=HAS_NATIVE,
        padded_rows=-(-rows // 16) * 16,
        row_stride=depth + seed % 70,
    )
    call = load_kernel(kernel)
    rng = np.random.default_rng(seed)
    gamma, beta = rng.standard_normal((2, depth)).astype(np.float32)
    for x in value_sets(rows, depth, seed):
        residual = np.flip(x, 0) * np.float32(0.7) if has_residual else None
        given_inputs = {
            "X": x,
            "residual": residual,
            "gamma": gamma,
            "beta": beta,
            "static": np.array(STATIC, np.float32),
        }
        found = call([given_inputs[operand.name] for operand in kernel.inputs])
        results = {o.name: value for o, value in zip(kernel.outputs, found, strict=True)}
        y = results["Y"]
        summed = x if residual is None else x + residual
        expected = layer_norm_reference(
            x, gamma, beta if has_beta else None, eps=eps, flavour=flavour, residual=residual
        )
        assert (np.abs(y - expected) <= tolerance(summed, gamma, eps, flavour)).all()
        if "Q" in results:
            static = STATIC if scheme == "static" else None
            codes, scales = quantize_reference(y, form=form, scheme=scheme, static=static)
            np.testing.assert_array_equal(results["Q"][:rows, :depth].view(codes.dtype), codes)
            np.testing.assert_allclose(results["S"][:rows], scales, rtol=0, atol=1.2e-38)
            assert not results["Q"][:rows, depth:].any()
        if "B" in results:
            np.testing.assert_array_equal(results["B"][:rows, :depth], convert_reference(y))
            assert not results["B"][:rows, depth:].any()


@pytest.mark.parametrize("depth", [40, 10000])
@pytest.mark.parametrize("outputs", [("q",), ("bf16", "q")])
def test_codes_without_f32(outputs: tuple[Output, ...], depth: int) -> None:
    x = np.random.default_rng(0).standard_normal((5, depth)).astype(np.float32)
    vectors = [np.linspace(0.5, 2.0, depth, dtype=np.float32), np.ones(depth, np.float32)]
    alone = layer_norm_kernel(5, depth, lanes=16, eps=1e-12, outputs=outputs)
    both = layer_norm_kernel(5, depth, lanes=16, eps=1e-12, outputs=("f32", "q"))
    *_, codes, scales = load_kernel(alone)([x, *vectors])
    _, expected, expected_scales = load_kernel(both)([x, *vectors])
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(scales, expected_scales)


def test_a_row_that_is_not_finite_affects_no_other() -> None:
    x = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    vectors = [np.ones(50, np.float32), np.zeros(50, np.float32)]
    call = load_kernel(layer_norm_kernel(4, 50, lanes=16, eps=1e-12, outputs=("f32", "q")))
    expected = call([x, *vectors])
    x[1, 3], x[2, 49] = np.nan, np.inf
    y, codes, scales = call([x, *vectors])
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
