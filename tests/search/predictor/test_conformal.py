"""Intervals hold as often as they say, whatever the errors are like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.search.predictor.conformal import LEVEL, reach


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_new_errors_lie_within(draw: str) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        hard = rng.uniform(0.5, 3, 61)
        errors = getattr(rng, draw)(61) * hard
        held.append(abs(errors[-1]) / hard[-1] <= reach(errors[:-1], hard[:-1]))
    assert np.mean(held) == pytest.approx(LEVEL, abs=0.05)


@given(st.lists(st.floats(-5, 5), min_size=9, max_size=60))
def test_it_reaches_the_share_of_errors_that_it_says(errors: list[float]) -> None:
    given_errors = np.array(errors)
    found = reach(given_errors, np.ones(len(errors)))
    assert (np.abs(given_errors) <= found).mean() >= LEVEL
    assert found <= np.abs(given_errors).max()


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=8))
def test_with_few_it_reaches_beyond_all(errors: list[float]) -> None:
    assert reach(np.array(errors), np.ones(len(errors))) > max(errors)
