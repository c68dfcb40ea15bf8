from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.controllers import CONTROLLERS, Controller, OnTable, Outcome, make
from canao.search.controllers.base import Choosable
from canao.search.controllers.conformance import CHECKS, check_foreign_states_are_refused
from canao.search.controllers.warm_start import WarmStart
from canao.search.space.choices import MatrixChoices
from canao.search.space.scalings import scalings
from tests.search.controllers.synthetic import accuracy_of, judged, latency_of, small_space

SPACE = small_space()
LIMIT = 0.8


def outcome(values: Mapping[str, Any]) -> Outcome:
    return judged(SPACE, values, LIMIT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("name", "limit"), [*((name, LIMIT) for name in CONTROLLERS), ("rnn", None), ("nsga2", None)]
)
def test_conformance(name: str, check: Callable[..., None], limit: float | None) -> None:
    def judge(values: Mapping[str, Any]) -> Outcome:
        return judged(SPACE, values, limit)

    check(lambda: make(name, SPACE, seed=3, trials=24, limit=limit), SPACE, judge)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["nsga2", "tpe", "rnn"])
def test_conformance_after_a_warm_start(name: str, check: Callable[..., None]) -> None:
    def begun() -> Controller:
        made = make(name, SPACE, seed=3, trials=24, limit=LIMIT)
        return WarmStart(made, scalings(SPACE))

    check(begun, SPACE, outcome)


def test_a_warm_start_comes_first_and_teaches() -> None:
    first = scalings(SPACE)
    warm = WarmStart(make("nsga2", SPACE, seed=3), first)
    plain = make("nsga2", SPACE, seed=3)
    for trial, values in enumerate(first):
        assert warm.ask(trial) == values
        assert warm.ask(trial, 1) == plain.ask(trial, 1)  # where it was tried already
        for one in (warm, plain):
            one.tell(trial, values, outcome(values))
    assert warm.state_json() == plain.state_json()
    assert warm.ask(len(first)) == plain.ask(len(first))


@pytest.mark.parametrize("name", CONTROLLERS)
def test_other_seeds_draw_otherwise(name: str) -> None:
    first, second = (make(name, SPACE, seed=seed).ask(0) for seed in (1, 2))
    assert first != second


def later(controller: Controller, trials: int) -> float:
    """How good proposals are in the last half: above 60 within the limit, 0 beyond it."""
    scores = []
    for trial in range(trials):
        values = controller.ask(trial)
        found = outcome(values)
        controller.tell(trial, values, found)
        scores.append(accuracy_of(SPACE.build(values)) - 60 if found.feasible else 0.0)
    return float(np.mean(scores[trials // 2 :]))


@pytest.mark.parametrize("name", ["nsga2", "tpe", "rnn"])
def test_learns_to_meet_the_limit_and_to_be_accurate(name: str) -> None:
    drawn = np.mean([later(make("random", SPACE, seed=seed), 80) for seed in range(2)])
    for seed in range(2):
        found = later(make(name, SPACE, seed=seed, trials=80, limit=LIMIT), 80)
        assert found > 1.15 * drawn


def test_a_space_without_choices() -> None:
    form = MatrixChoices()
    fixed = small_space(
        layers=(2,), hidden=(64,), heads=(2,), ffn=(64,), seq_lens=(16,), up=form, down=form
    )
    for name in CONTROLLERS:
        controller = make(name, fixed)
        values = controller.ask(0)
        controller.tell(0, values, judged(fixed, values))
        assert fixed.build(controller.ask(1)) == fixed.build(values)


def test_unknown_controllers_are_refused() -> None:
    with pytest.raises(InputError, match="no controller 'annealing': there are nsga2, tpe"):
        make("annealing", SPACE)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_state_of_another_space_is_refused(name: str) -> None:
    if name == "random":
        return
    controller = make(name, SPACE)
    values = controller.ask(0)
    controller.tell(0, values, outcome(values))
    state = controller.state_json()
    other: Choosable = small_space(layers=(1, 4), hidden=(32, 64), ffn=(32,))
    with pytest.raises(InputError):
        make(name, other).restore(state)


def members(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [SPACE.values(SPACE.sample(rng)) for _ in range(count)]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_table_gives_each_member_once(name: str) -> None:
    table = members(20)
    controller = OnTable(make(name, SPACE, trials=20, limit=LIMIT), SPACE, table)
    asked = []
    for trial in range(len(table)):
        values = controller.ask(trial)
        asked.append(table.index(dict(values)))
        controller.tell(trial, values, outcome(values))
        if trial == 9:
            state = controller.state_json()
            controller = OnTable(make(name, SPACE, trials=20, limit=LIMIT), SPACE, table)
            controller.restore(state)
    digests = {SPACE.build(values).digest for values in table}
    assert len({SPACE.build(table[place]).digest for place in asked}) == len(digests)
    with pytest.raises(InputError, match="All 20 members"):
        controller.ask(20)


def test_a_table_proposes_the_nearest() -> None:
    table = [{**v, "hidden": h} for v, h in zip(members(2), (64, 128), strict=True)]

    class Fixed:
        name = "fixed"

        def ask(self, trial: int, draw: int = 0) -> Any:
            return {**table[1], "hidden": 96}

        def tell(self, trial: int, values: Any, outcome: Outcome) -> None:
            pass

        def state_json(self) -> dict[str, Any]:
            return {}

        def restore(self, state: Any) -> None:
            if state.get("name") != "fixed":
                raise InputError("no")

    controller = OnTable(Fixed(), SPACE, table)
    assert controller.ask(0) == table[1]
    controller.tell(0, table[1], outcome(table[1]))
    assert controller.ask(1) == table[0]
    check_foreign_states_are_refused(lambda: OnTable(Fixed(), SPACE, table), SPACE, outcome)
    with pytest.raises(InputError, match="must have some"):
        OnTable(Fixed(), SPACE, [])


NUMBERS = st.floats(-1e6, 1e6)


@given(
    accuracy=st.none() | NUMBERS,
    latency=st.none() | st.floats(1e-6, 1e6),
    memory=st.none() | st.integers(0, 2**40),
    violations=st.lists(NUMBERS, max_size=3),
    reason=st.text(max_size=20),
)
def test_outcomes_round_trip(
    accuracy: Any, latency: Any, memory: Any, violations: Any, reason: str
) -> None:
    given_values = {
        "accuracy": accuracy,
        "latency": latency,
        "memory": memory,
        "violations": tuple(violations),
        "reason": reason,
    }
    fits = sum(value for value in violations if value > 0) <= 0
    if fits and (accuracy is None or latency is None):
        with pytest.raises(InputError):
            Outcome(**given_values)
        return
    found = Outcome(**given_values)
    assert Outcome.from_json(found.to_json()) == found
    assert found.feasible == fits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": "high"}, "accuracy"),
        ({"latency": True}, "latency"),
        ({"memory": 1.5}, "memory"),
        ({"violations": 3}, "violations"),
        ({"version": 2}, "version"),
        ({"speed": 3}, "speed"),
        ({"accuracy": float("nan")}, "finite"),
    ],
)
def test_bad_outcomes_name_the_field(change: dict[str, Any], message: str) -> None:
    good = Outcome(accuracy=1.0, latency=2.0).to_json()
    with pytest.raises(InputError, match=message):
        Outcome.from_json({**good, **change})


def test_the_synthetic_problem_has_something_to_find() -> None:
    rng = np.random.default_rng(0)
    found = [SPACE.sample(rng) for _ in range(200)]
    times = [latency_of(one) for one in found]
    assert max(times) > 10 * min(times)
    assert 0.2 < np.mean([time <= LIMIT for time in times]) < 0.9
