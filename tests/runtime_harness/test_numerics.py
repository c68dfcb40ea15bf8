from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from canao.errors import InputError
from canao.runtime_harness.numerics import Comparison, compare, merge

ABSOLUTE = {"max_abs_rel": 1e-4}
COSINE = {"cosine": 0.9995}
finite = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@given(finite)
def test_an_output_agrees_with_itself(array: np.ndarray) -> None:
    for tolerance in (ABSOLUTE, COSINE, {**ABSOLUTE, **COSINE}):
        found = compare({"y": array}, {"y": array}, tolerance)
        assert found.ok
        assert found.reason == ""
        assert found.max_abs_err == 0
        assert found.cosine == pytest.approx(1)


@given(finite, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_nan_and_infinity_are_never_ok(array: np.ndarray, bad: float, data: st.DataObject) -> None:
    spoilt = array.copy()
    spoilt.flat[data.draw(st.integers(0, array.size - 1))] = bad
    for actual, reference in ((spoilt, array), (array, spoilt), (spoilt, spoilt)):
        for tolerance in (ABSOLUTE, COSINE):
            found = compare({"y": actual}, {"y": reference}, tolerance)
            assert not found.ok
            assert found.max_abs_err is None
            assert found.cosine is None


def test_the_error_is_relative_to_the_largest_reference_value() -> None:
    reference = np.array([1000.0, 0.001], np.float32)
    assert compare({"y": reference + np.array([0.09, 0])}, {"y": reference}, ABSOLUTE).ok
    assert compare({"y": reference + np.array([0, 0.09])}, {"y": reference}, ABSOLUTE).ok
    found = compare({"y": reference + np.array([0, 0.11])}, {"y": reference}, ABSOLUTE)
    assert not found.ok
    assert "'y'" in found.reason
    assert found.max_abs_err == pytest.approx(0.11, rel=1e-3)


def test_the_cosine_ignores_scale_but_not_direction() -> None:
    reference = np.arange(1, 9, dtype=np.float32)
    assert compare({"y": reference * 3}, {"y": reference}, COSINE).ok
    assert not compare({"y": -reference}, {"y": reference}, COSINE).ok
    assert not compare({"y": reference * 0}, {"y": reference}, COSINE).ok
    assert compare({"y": reference * 0}, {"y": reference * 0}, COSINE).ok


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_cosine_neither_overflows_nor_vanishes(size: float) -> None:
    reference = np.array([1, 2, 3], np.float32) * np.float32(size)
    assert compare({"y": reference}, {"y": reference}, COSINE).cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("actual", "reference", "ok"),
    [
        (np.array([True, False]), np.array([True, False]), True),
        (np.array([True, False]), np.array([True, True]), False),
        (np.array([1, 2], np.int32), np.array([1, 2], np.int64), True),
        (np.array([1, 2], np.uint8), np.array([1, 2], np.int64), True),
        (np.array([1, 3], np.int32), np.array([1, 2], np.int32), False),
        (np.array([1.0, 2.0]), np.array([1, 2]), False),
        (np.array([1, 0]), np.array([True, False]), False),
    ],
)
def test_integers_and_booleans_must_be_equal(
    actual: np.ndarray, reference: np.ndarray, ok: bool
) -> None:
    found = compare({"y": actual}, {"y": reference}, {"cosine": 0.0})
    assert found.ok is ok
    assert bool(found.reason) is not ok


def test_low_precision_outputs_are_compared_with_a_float_reference() -> None:
    reference = np.linspace(-1, 1, 64, dtype=np.float32)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        assert compare({"y": reference.astype(dtype)}, {"y": reference}, COSINE).ok
        assert not compare({"y": reference.astype(dtype)}, {"y": reference}, ABSOLUTE).ok


def test_a_missing_output_or_another_shape_is_not_ok() -> None:
    reference = {"y": np.ones((2, 3), np.float32)}
    for actual in ({}, {"y": np.ones((3, 2), np.float32)}, {"y": np.ones(6, np.float32)}):
        found = compare(actual, reference, COSINE)
        assert not found.ok
        assert found.max_abs_err is None
    assert not compare({}, {}, COSINE).ok


@pytest.mark.parametrize(
    "tolerance",
    [
        {},
        {"other": 1.0},
        {"cosine": math.nan},
        {"cosine": -1.0},
        {"cosine": True},
        {"cosine": "1"},
    ],
)
def test_a_wrong_tolerance_is_refused(tolerance: dict) -> None:
    with pytest.raises(InputError):
        compare({}, {}, tolerance)


def test_merging_keeps_the_worst() -> None:
    good = Comparison(max_abs_err=0.1, cosine=0.9, ok=True)
    worse = Comparison(max_abs_err=0.3, cosine=0.95, ok=False, reason="why")
    unmeasured = Comparison(max_abs_err=None, cosine=None, ok=False, reason="shape")
    assert merge([good, worse]) == Comparison(max_abs_err=0.3, cosine=0.9, ok=False, reason="why")
    assert merge([good, unmeasured]) == unmeasured
    assert not merge([]).ok
    assert good.to_json() == {"max_abs_err": 0.1, "cosine": 0.9, "ok": True, "reason": ""}
