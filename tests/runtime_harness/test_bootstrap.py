"""Intervals of medians and ratios: how often they hold the truth, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness.bootstrap import LEAST_ROUNDS, median_of, ratio_of
from canao.runtime_harness.comparison import _judge as judge_ratio
from canao.runtime_harness.disturbance import Disturbance
from canao.runtime_harness.stability import judge

TRIALS, ROUNDS, CALLS = 60, 20, 5
times = st.floats(0.01, 1e4)
rounds = st.integers(1, 4).flatmap(
    lambda calls: st.lists(
        st.lists(times, min_size=calls, max_size=calls), min_size=1, max_size=12
    )
)

# Each draws the effect of whole rounds and that of single calls, around a median of 10.
DRAWS: dict[str, Callable[[np.random.Generator], Any]] = {
    "normal": lambda random: 10 + random.normal(0, 0.2, (ROUNDS, CALLS)),
    "skewed": lambda random: 10 * np.exp(random.normal(0, 0.3, (ROUNDS, CALLS))),
    "by rounds": lambda random: (
        10 + random.normal(0, 0.3, (ROUNDS, 1)) + random.normal(0, 0.05, (ROUNDS, CALLS))
    ),
    "heavy tails": lambda random: 10 + 0.1 * random.standard_t(2, (ROUNDS, CALLS)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(name: str) -> None:
    random = np.random.default_rng(1)
    held = [
        low <= 10 <= high
        for _ in range(TRIALS)
        for low, high in [median_of(DRAWS[name](random).tolist()).interval]
    ]
    # 95 % of 60 is 57; less than 51 would come once in 300 times.
    assert sum(held) >= 51


@pytest.mark.parametrize("noise", [0.002, 0.02])
def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says(noise: float) -> None:
    random = np.random.default_rng(2)
    held, widths = [], []
    for _ in range(TRIALS):
        # The machine drifts by a third under both.
        speed = np.linspace(1, 1.3, ROUNDS)[:, None]
        above = 3 * speed * np.exp(random.normal(0, noise, (ROUNDS, CALLS)))
        below = 2 * speed * np.exp(random.normal(0, noise, (ROUNDS, CALLS)))
        found = ratio_of(above.tolist(), below.tolist())
        held.append(found.low <= 1.5 <= found.high)
        widths.append(found.uncertainty)
    assert sum(held) >= 51
    assert np.median(widths) < noise


def test_spoiled_rounds_hardly_move_a_ratio() -> None:
    random = np.random.default_rng(3)
    below = np.exp(random.normal(0, 0.002, (20, 5)))
    above = 2 * np.exp(random.normal(0, 0.002, (20, 5)))
    above[[3, 9, 15]] *= 5
    assert ratio_of(above.tolist(), below.tolist()).value == pytest.approx(2, rel=0.005)


@given(rounds)
def test_a_median_lies_in_its_interval_and_among_its_samples(drawn: list[list[float]]) -> None:
    found = median_of(drawn)
    samples = [sample for one in drawn for sample in one]
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)
    assert found == median_of(drawn)


@given(rounds, st.floats(0.1, 10), st.lists(st.floats(0.5, 2), min_size=12, max_size=12))
def test_what_slows_both_sides_of_a_round_alike_cancels_out(
    drawn: list[list[float]], factor: float, speeds: list[float]
) -> None:
    below = [[value * speed for value in one] for one, speed in zip(drawn, speeds, strict=False)]
    above = [[value * factor for value in one] for one in below]
    found = ratio_of(above, below)
    assert found.value == pytest.approx(factor)
    if len(drawn) >= LEAST_ROUNDS:
        assert found.interval == pytest.approx((factor, factor))
    assert found.low <= factor * (1 + 1e-9)
    assert factor * (1 - 1e-9) <= found.high


@given(rounds)
def test_few_rounds_are_never_sure(drawn: list[list[float]]) -> None:
    few = drawn[: LEAST_ROUNDS - 1]
    samples = [sample for one in few for sample in one]
    found = median_of(few)
    assert found.interval == (min(samples), max(samples))
    for verdict in (
        judge([10.0] * 20, estimate=found),
        judge_ratio(ratio_of(few, few), Disturbance()),
    ):
        assert (verdict.stable, "6 are needed" in verdict.reason) == (False, True)


def test_one_round_proves_nothing_by_standing_still() -> None:
    one = [[10.0] * 20]
    assert not judge(one[0], estimate=median_of(one)).stable
    assert judge(one[0] * 6, estimate=median_of(one * 6)).stable


@given(rounds, rounds)
def test_a_ratio_turned_round_is_its_inverse(a: list[list[float]], b: list[list[float]]) -> None:
    count = min(len(a), len(b))
    there, back = ratio_of(a[:count], b[:count]), ratio_of(b[:count], a[:count])
    assert there.value == pytest.approx(1 / back.value)
    assert there.low <= there.value <= there.high


@pytest.mark.parametrize("wrong", [[], [[]], [[1.0], [1.0, 2.0]]])
def test_rounds_must_be_alike(wrong: list[list[float]]) -> None:
    with pytest.raises(InputError, match="rounds"):
        median_of(wrong)


@pytest.mark.parametrize("wrong", [([], []), ([[1.0]], [[1.0], [2.0]]), ([[]], [[1.0]])])
def test_a_ratio_needs_the_same_rounds(wrong: tuple[list[Any], list[Any]]) -> None:
    with pytest.raises(InputError, match="same rounds"):
        ratio_of(*wrong)
