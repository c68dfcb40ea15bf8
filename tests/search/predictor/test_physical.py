"""The sum over dispatches: costs are found again, never negative, shared in families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.predictor.physical import PhysicalModel, best_cache
from canao.search.predictor.timed import TimedDispatches
from canao.search.predictor.workload import TERMS, Workload, working_set

GROUPS = ("product/f32/avx512", "product/int8/amx", "product/int8/avx512", "norm/f32")
COSTS = np.array(
    [
        [0.01, 2.0, 0.05, 0.05, 0.1, 0.02],
        [0.02, 0.3, 0.05, 0.1, 0.1, 0.02],
        [0.01, 0.8, 0.05, 0.1, 0.2, 0.02],
        [0.01, 0.0, 0.0, 0.3, 0.0, 0.0],
    ]
)
CACHE = 2.0


def workload(terms: Mapping[str, tuple[float, ...]]) -> Workload:
    return Workload(terms=terms, features=np.zeros(1), position={})


def drawn(count: int, seed: int = 0) -> list[Workload]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        rows = np.exp(rng.normal(0, 1.0, (len(GROUPS), len(TERMS)))) * [5, 1, 1, 1, 0.3, 1]
        rows[-1, [1, 2, 4, 5]] = 0
        there = rng.random(len(GROUPS)) < 0.8
        there[0] = True
        found.append(
            workload({g: tuple(row) for g, row, on in zip(GROUPS, rows, there, strict=True) if on})
        )
    return found


def truth(workloads: list[Workload]) -> Any:
    cost = dict(zip(GROUPS, COSTS, strict=True))
    found = []
    for one in workloads:
        lost = min(max(working_set(one) / CACHE - 0.5, 0), 1)
        scale = np.array([1, 1, 1, 1, 1, lost])
        found.append(0.05 + sum(float(cost[g] @ (row * scale)) for g, row in one.terms.items()))
    return np.array(found)


def fitted(workloads: list[Workload], relative: Any) -> PhysicalModel:
    return PhysicalModel.fit(workloads, relative, np.ones(len(relative)), cache=CACHE)


def test_costs_are_found_again() -> None:
    train, test = drawn(150), drawn(50, seed=1)
    rng = np.random.default_rng(2)
    noisy = truth(train) * np.exp(0.01 * rng.standard_normal(len(train)))
    model = fitted(train, noisy)
    assert np.abs(model.predict(test) / truth(test) - 1).max() < 0.05
    assert model.cost(GROUPS[0])[1] == pytest.approx(2.0, rel=0.1)


def test_a_few_wild_measurements_do_not_matter() -> None:
    train, test = drawn(150), drawn(50, seed=1)
    wild = truth(train)
    wild[::13] *= 3
    assert np.abs(fitted(train, wild).predict(test) / truth(test) - 1).mean() < 0.03


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_more_work_never_takes_less(seed: int, more: float) -> None:
    rng = np.random.default_rng(seed)
    train = drawn(12, seed)
    relative = np.exp(rng.normal(0, 1.5, len(train)))  # whatever was measured
    model = PhysicalModel.fit(train, relative, np.ones(len(train)), cache=CACHE)
    assert model.constant >= 0
    assert all(cost >= 0 for each in model.costs.values() for cost in each)
    one = train[0]
    group = sorted(one.terms)[seed % len(one.terms)]
    for place in range(len(TERMS)):
        row = list(one.terms[group])
        row[place] += more
        larger = workload({**one.terms, group: tuple(row)})
        assert model.predict([larger])[0] >= model.predict([one])[0]


def test_what_was_never_measured_takes_after_its_family() -> None:
    train = drawn(80)
    model = fitted(train, truth(train))
    stranger = model.cost("product/int8/neon")
    known = np.array([model.cost(group) for group in GROUPS[1:3]])
    assert stranger.sum() > 0
    assert (stranger <= known.max(axis=0) + 1e-9).all()


def test_it_survives_json_and_refuses_what_is_no_model() -> None:
    train = drawn(40)
    model = fitted(train, truth(train))
    assert PhysicalModel.from_json(model.to_json()) == model
    good = model.to_json()
    for bad in (
        None,
        {**good, "constant": -1.0},
        {**good, "constant": "1"},
        {**good, "cache": -1.0},
        {**good, "gap": None},
        {**good, "costs": []},
        {**good, "costs": {"*": [1.0, 2.0]}},
        {**good, "costs": {"*": [1.0, -2.0, 0.0, 0.0, 0.0, 0.0]}},
        {**good, "costs": {"*": [float("inf"), 0.0, 0.0, 0.0, 0.0, 0.0]}},
    ):
        with pytest.raises(InputError):
            PhysicalModel.from_json(bad)


def test_the_size_of_the_cache_shows_in_the_latencies() -> None:
    train = drawn(150)
    costly = [
        workload({g: (*row[:-1], 8 * row[-1] / 5) for g, row in one.terms.items()})
        for one in train
    ]
    assert best_cache(costly, truth(costly), np.ones(150)) in (1.0, 2.0, 4.0)


def test_timed_dispatches_say_what_whole_models_do_not() -> None:
    # Two groups always do the same work: only single dispatches tell which of them is slow.
    rng = np.random.default_rng(3)
    slow, fast = "product/f32/slow", "product/f32/fast"
    train, times = [], []
    for _ in range(40):
        row = np.array([4.0, rng.uniform(0.5, 2), 0, 0, 0, 0])
        train.append(workload({slow: tuple(row), fast: tuple(row)}))
        sums = {}
        for group, cost in ((slow, 3.0), (fast, 1.0)):
            each = row / 4 / (cost * row[1] / 4)  # four dispatches, by their time
            sums[group] = (4 * np.outer(each, each), 4 * each)
        times.append(TimedDispatches(sums=sums))
    relative = np.array([4.0 * one.terms[slow][1] for one in train])
    model = PhysicalModel.fit(train, relative, np.ones(40), cache=0.0, timed=times)
    ratio = (model.cost(slow) @ row) / (model.cost(fast) @ row)
    assert ratio == pytest.approx(3, rel=0.25)
    blind = PhysicalModel.fit(train, relative, np.ones(40), cache=0.0)
    assert (blind.cost(slow) @ row) / (blind.cost(fast) @ row) == pytest.approx(1, rel=0.01)
