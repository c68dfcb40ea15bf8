"""What any controller must do; tests run it on canao's own, and others may on theirs.

    for check in CHECKS:
        check(lambda: MyController(space, seed=3), space, outcome)

``make`` makes a controller, equal ones each time; ``space`` is what it was made for, with at
least a dozen architectures; ``outcome`` judges choices, and does not find all of them feasible.
Each check raises AssertionError.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ...errors import InputError
from ..space.space import Scalar
from .base import Choosable, Controller, Values
from .outcome import Outcome

__all__ = [
    "CHECKS",
    "check_asking_changes_nothing",
    "check_choices_are_of_the_space",
    "check_foreign_states_are_refused",
    "check_goes_on_from_a_saved_state",
    "check_learns_from_what_it_did_not_ask_for",
    "check_repeats_itself",
    "check_takes_every_outcome",
    "check_trials_and_draws_differ",
]

Make = Callable[[], Controller]
Judge = Callable[[Values], Outcome]
_TRIALS = 22
_FEW = 6


def check_choices_are_of_the_space(make: Make, space: Choosable, outcome: Judge) -> None:
    """Every decision has a choice of its own."""
    controller = make()
    for values in _run(controller, outcome, range(_TRIALS)):
        assert list(values) == [decision.name for decision in space.decisions()]
        for decision in space.decisions():
            assert values[decision.name] in decision.choices


def check_repeats_itself(make: Make, space: Choosable, outcome: Judge) -> None:
    """The same tale gives the same proposals."""
    first, second = (_run(make(), outcome, range(_TRIALS)) for _ in range(2))
    assert first == second


def check_asking_changes_nothing(make: Make, space: Choosable, outcome: Judge) -> None:
    """Whoever asks twice hears the same, and others hear what they would have."""
    patient, curious = make(), make()
    for trial in range(_TRIALS):
        curious.ask(trial + 7, 1)
        values = curious.ask(trial)
        assert values == patient.ask(trial)
        assert values == curious.ask(trial)
        for controller in (patient, curious):
            controller.tell(trial, values, outcome(values))


def check_trials_and_draws_differ(make: Make, space: Choosable, outcome: Judge) -> None:
    """Before anything was told, other trials and other draws are other choices."""
    controller = make()
    asked = [controller.ask(trial) for trial in range(_TRIALS)]
    drawn = [controller.ask(0, draw) for draw in range(_TRIALS)]
    for found in (asked, drawn):
        assert len({json.dumps(values, sort_keys=True) for values in found}) > 1


def check_goes_on_from_a_saved_state(make: Make, space: Choosable, outcome: Judge) -> None:
    """A state that went through JSON gives what would have come without."""
    whole = _run(make(), outcome, range(_TRIALS))
    for kept in (0, 1, _TRIALS - _FEW):
        controller = make()
        _run(controller, outcome, range(kept))
        state = json.loads(json.dumps(controller.state_json(), allow_nan=False))
        other = make()
        other.restore(state)
        assert json.loads(json.dumps(other.state_json())) == state
        assert _run(other, outcome, range(kept, _TRIALS)) == whole[kept:]


def check_foreign_states_are_refused(make: Make, space: Choosable, outcome: Judge) -> None:
    """What no such controller saved raises `InputError`."""
    for state in ({}, {"name": "nobody"}, {"name": None, "told": 3}):
        try:
            make().restore(state)
        except InputError:
            continue
        raise AssertionError(f"{state} was taken for a state")


def check_takes_every_outcome(make: Make, space: Choosable, outcome: Judge) -> None:
    """Without accuracy, without latency, all of them infeasible, all of them equal."""
    kinds = (
        Outcome(accuracy=None, latency=9.0, memory=10, violations=(0.5, -0.1), reason="slow"),
        Outcome(accuracy=None, latency=None, violations=(1.0,), reason="cannot be built"),
        Outcome(accuracy=50.0, latency=2.0, memory=10, violations=(0.0, -0.5)),
        Outcome(accuracy=-3.0, latency=2.0),
    )
    for only in (*((kind,) for kind in kinds), kinds):
        controller = make()
        for trial in range(_TRIALS):
            controller.tell(trial, controller.ask(trial), only[trial % len(only)])


def check_learns_from_what_it_did_not_ask_for(
    make: Make, space: Choosable, outcome: Judge
) -> None:
    """Trials of other workers are told too, in any order, and without inactive decisions."""
    controller = make()
    for trial in reversed(range(_TRIALS)):
        values = controller.ask(trial + 100)
        active = {name: values[name] for name in space.active(values)}
        controller.tell(trial, active, outcome(values))
    assert controller.ask(_TRIALS)


CHECKS = (
    check_choices_are_of_the_space,
    check_repeats_itself,
    check_asking_changes_nothing,
    check_trials_and_draws_differ,
    check_goes_on_from_a_saved_state,
    check_foreign_states_are_refused,
    check_takes_every_outcome,
    check_learns_from_what_it_did_not_ask_for,
)


def _run(controller: Controller, outcome: Judge, trials: range) -> list[dict[str, Scalar]]:
    found = []
    for trial in trials:
        values = controller.ask(trial)
        controller.tell(trial, values, outcome(values))
        found.append(dict(values))
    return found
