"""Kernels that multiply by a smoothing vector before they quantise."""

from __future__ import annotations

import numpy as np
import pytest

from canao import targets
from canao.compiler.kernels.normalize import Output, layer_norm_kernel
from canao.compiler.kernels.quantize import quantize_kernel
from canao.compiler.kernels.quantize_reference import quantize_reference

from .batch import PLACES, outputs_of


@pytest.mark.parametrize("name", PLACES)
def test_rows_are_smoothed_and_then_quantised(name: str) -> None:
    batch = []
    for depth in (7, 64, 150):
        rng = np.random.default_rng(depth)
        x = rng.standard_normal((20, depth)).astype(np.float32)
        vector = rng.uniform(0.1, 4.0, depth).astype(np.float32)
        batch.append((quantize_kernel(20, depth, lanes=8, smoothing=True), (x, vector)))
    results = outputs_of(batch, targets.get(name))
    for (_, (x, vector)), (codes, scales) in zip(batch, results, strict=True):
        expected, expected_scales = quantize_reference(x * vector)
        np.testing.assert_array_equal(codes.view(np.uint8), expected)
        np.testing.assert_array_equal(scales, expected_scales)


@pytest.mark.parametrize("name", PLACES)
def test_a_norm_smooths_its_codes_alone(name: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 70)).astype(np.float32)
    vectors = list(rng.standard_normal((2, 70)).astype(np.float32))
    vector = rng.uniform(0.1, 4.0, 70).astype(np.float32)
    plain = layer_norm_kernel(20, 70, lanes=8, eps=1e-12, outputs=("f32",))
    batch = [(plain, [x, *vectors])]
    ways: list[tuple[Output, ...]] = [("f32", "q"), ("q",)]
    for outputs in ways:
        kernel = layer_norm_kernel(20, 70, lanes=8, eps=1e-12, outputs=outputs, smoothing=True)
        batch.append((kernel, [x, *vectors, vector]))
    (y,), *smooth = outputs_of(batch, targets.get(name))
    expected, expected_scales = quantize_reference(y * vector)
    for *wide, codes, scales in smooth:
        np.testing.assert_array_equal(codes.view(np.uint8), expected)
        np.testing.assert_array_equal(scales, expected_scales)
        for found in wide:
            np.testing.assert_array_equal(found, y)
