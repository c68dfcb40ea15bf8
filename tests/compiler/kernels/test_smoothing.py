"""Kernels that multiply by a smoothing vector before they quantise."""

from __future__ import annotations

import numpy as np
import pytest

from canao.compiler.kernels.normalize import Output, layer_norm_kernel
from canao.compiler.kernels.quantize import quantize_kernel
from canao.compiler.kernels.quantize_reference import quantize_reference

from .support import run_kernel


@pytest.mark.parametrize("depth", [7, 64, 150])
def test_rows_are_smoothed_and_then_quantised(depth: int) -> None:
    rng = np.random.default_rng(depth)
    x = rng.standard_normal((20, depth)).astype(np.float32)
    vector = rng.uniform(0.1, 4.0, depth).astype(np.float32)
    kernel = quantize_kernel(20, depth, lanes=8, smoothing=True)
    codes, scales = run_kernel(kernel, [x, vector])
    expected, expected_scales = quantize_reference(x * vector)
    np.testing.assert_array_equal(codes.view(np.uint8), expected)
    np.testing.assert_array_equal(scales, expected_scales)


@pytest.mark.parametrize("outputs", [("f32", "q"), ("q",)])
def test_a_norm_smooths_its_codes_alone(outputs: tuple[Output, ...]) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 70)).astype(np.float32)
    gamma, beta = rng.standard_normal((2, 70)).astype(np.float32)
    vector = rng.uniform(0.1, 4.0, 70).astype(np.float32)
    plain = layer_norm_kernel(20, 70, lanes=8, eps=1e-12, outputs=("f32",))
    (y,) = run_kernel(plain, [x, gamma, beta])
    kernel = layer_norm_kernel(20, 70, lanes=8, eps=1e-12, outputs=outputs, smoothing=True)
    *wide, codes, scales = run_kernel(kernel, [x, gamma, beta, vector])
    expected, expected_scales = quantize_reference(y * vector)
    np.testing.assert_array_equal(codes.view(np.uint8), expected)
    np.testing.assert_array_equal(scales, expected_scales)
    for found in wide:
        np.testing.assert_array_equal(found, y)
