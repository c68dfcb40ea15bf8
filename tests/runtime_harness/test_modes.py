"""Outliers and bimodal samples: found where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.runtime_harness.modes import outliers, two_modes

seeds = st.integers(0, 2**32 - 1)


@given(
    seed=seeds,
    count=st.integers(40, 200),
    share=st.floats(0.25, 0.75),
    gap=st.floats(0.05, 1.0),
    scale=st.floats(0.01, 1e3),
)
def test_two_separate_modes_are_found(
    seed: int, count: int, share: float, gap: float, scale: float
) -> None:
    random = np.random.default_rng(seed)
    slow = round(share * count)
    noise = np.clip(random.normal(0, 0.004, count), -0.01, 0.01)
    samples = scale * (1 + noise + gap * (np.arange(count) < slow))
    random.shuffle(samples)
    found = two_modes(samples.tolist())
    assert found is not None
    assert found.fast == pytest.approx(scale, rel=0.01)
    assert found.slow == pytest.approx(scale * (1 + gap), rel=0.01)
    assert found.share_of_slow == pytest.approx(slow / count, abs=0.02)


@pytest.mark.parametrize(
    "draw",
    [
        lambda random, n: random.normal(10, 0.3, n),
        lambda random, n: random.normal(10, 2.0, n),
        lambda random, n: random.uniform(9, 11, n),
        lambda random, n: 10 + random.exponential(0.5, n),
        lambda random, n: 10 * np.exp(random.normal(0, 0.3, n)),
        lambda random, n: np.full(n, 10.0),
    ],
    ids=["normal", "broad", "uniform", "exponential", "log-normal", "constant"],
)
def test_one_mode_is_hardly_ever_taken_for_two(draw: object) -> None:
    random = np.random.default_rng(4)
    wrong = sum(
        two_modes(np.abs(draw(random, count)).tolist()) is not None  # type: ignore[operator]
        for count in (50, 100, 200)
        for _ in range(40)
    )
    assert wrong <= 4  # of 120


def test_few_samples_and_close_modes_do_not_tell() -> None:
    assert two_modes([10.0, 20.0] * 9) is None
    assert two_modes([10.0, 20.0] * 10) is not None
    assert two_modes([10.0, 10.2] * 20) is None
    assert two_modes([10.0] * 36 + [20.0] * 4) is None  # outliers, not a mode
    assert two_modes([]) is None


@given(
    seed=seeds,
    count=st.integers(20, 100),
    far=st.lists(st.floats(1.2, 10.0), max_size=3),
)
def test_what_lies_far_off_is_an_outlier(seed: int, count: int, far: list[float]) -> None:
    random = np.random.default_rng(seed)
    near = (10 + np.clip(random.normal(0, 0.05, count), -0.15, 0.15)).tolist()
    samples = [*near, *(10 * factor for factor in far)]
    random.shuffle(samples)
    assert sorted(outliers(samples)) == sorted(10 * factor for factor in far)


def test_outliers_keep_their_order_and_need_a_distance() -> None:
    assert outliers([10.0, 30.0, 10.0, 2.0, 10.0, 10.0]) == (30.0, 2.0)
    # All others are equal, yet 1 % is no distance.
    assert outliers([10.0] * 9 + [10.1]) == ()
    assert outliers([]) == ()
