"""A worker: claims a trial, asks the controller, has it evaluated, keeps what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CanaoError, InputError
from ...runtime_harness.bundle.atomic import replace_file
from ..controllers import Controller, Outcome
from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace
from .ledger import Claim, Ledger
from .problem import Evaluator
from .trial import Trial
from .typed import read_file, read_row

__all__ = ["Snapshot", "read_trials", "trials_of", "work"]

_DRAWS = 8
_MOST_LOST = 3
_PAUSE = 0.2
_SNAPSHOT = {"version": int, "told": tuple[int, ...], "state": Mapping[str, Any]}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a controller has learnt, in a file, with the numbers of the trials that taught it."""

    path: Path

    def save(self, controller: Controller, told: list[int]) -> None:
        """Keep it, at one stroke."""
        state = {"version": 1, "told": told, "state": controller.state_json()}
        replace_file(self.path, json.dumps(state).encode())

    def restore(self, controller: Controller, finished: Mapping[int, Any]) -> list[int]:
        """Take it up if it is of these trials; the numbers of those that it was told."""
        try:
            found = read_row(read_file(self.path), _SNAPSHOT, "a snapshot")
            told = list(found["told"])
            if found["version"] == 1 and all(number in finished for number in told):
                controller.restore(found["state"])
                return told
        except (ValueError, LookupError, TypeError, AttributeError, InputError):
            pass  # everything can be told again
        return []


def trials_of(ledger: Ledger) -> dict[int, Trial]:
    """The finished trials of a study by number; raises `InputError` for damaged ones."""
    return read_trials(ledger.finished())


def read_trials(records: Mapping[int, Mapping[str, Any]]) -> dict[int, Trial]:
    """The trials among the records of a ledger, by number; raises `InputError` for damaged
    ones."""
    found = {}
    for number in sorted(records):
        if number < 0:
            continue
        try:
            found[number] = Trial.from_json(records[number])
        except InputError as error:
            reason = str(error).rstrip(".")
            raise InputError(
                f"Trial {number} of the study is damaged ({reason}): restore the study from a "
                "copy, or begin another."
            ) from error
        if found[number].number != number:
            raise InputError(
                f"Trial {number} of the study says that it is trial {found[number].number}: "
                "restore the study from a copy, or begin another."
            )
    return found


def work(
    ledger: Ledger,
    make: Callable[[], Controller],
    space: ArchitectureSpace,
    evaluator: Evaluator,
    *,
    trials: int,
    snapshot: Snapshot | None = None,
    name: str = "",
    told: Callable[[Mapping[int, Trial]], None] | None = None,
) -> dict[int, Trial]:
    """Do trials until all of ``trials`` are finished, whoever did them.

    ``make`` makes the controller; ``told`` is called with all finished trials whenever there are
    more. Raises `InputError` for a space of which hardly anything can be built, and what the
    evaluator raises; the trial then is nobody's.
    """
    done = trials_of(ledger)
    controller = make()
    heard = snapshot.restore(controller, done) if snapshot else []
    if not heard:
        controller = make()
    first = True
    while True:
        began = time.monotonic()
        done |= _news(ledger, done)
        fresh = sorted(set(done) - set(heard))
        for number in fresh:
            controller.tell(number, done[number].values, done[number].outcome)
            heard.append(number)
        if fresh and snapshot is not None:
            snapshot.save(controller, heard)
        if told is not None and (fresh or first):
            told(done)
        first = False
        claim = ledger.claim(range(trials))
        if claim is None:
            if all(number in done for number in range(trials)):
                return {number: done[number] for number in sorted(done) if number < trials}
            time.sleep(_PAUSE)  # others are at the last ones
            continue
        try:
            with ledger.beating(claim):
                trial = _evaluate(claim, controller, space, evaluator, done, began, name)
            _keep(ledger, claim, trial)
        except BaseException:
            _give_back(ledger, claim)
            raise


def _news(ledger: Ledger, done: Mapping[int, Trial]) -> dict[int, Trial]:
    found = ledger.finished()
    return read_trials({number: found[number] for number in found if number not in done})


def _evaluate(
    claim: Claim,
    controller: Controller,
    space: ArchitectureSpace,
    evaluator: Evaluator,
    done: Mapping[int, Trial],
    began: float,
    name: str,
) -> Trial:
    values, architecture, before = _propose(claim.number, controller, space, done)
    asked = time.monotonic()
    if before is not None:
        finding, outcome = done[before].finding, done[before].outcome
    elif claim.lost >= _MOST_LOST:
        finding = None
        reason = f"its evaluation ended {claim.lost} processes"
        outcome = Outcome(accuracy=None, latency=None, violations=(1.0,), reason=reason)
    else:
        finding, outcome = evaluator.evaluate(architecture)
    return Trial(
        number=claim.number,
        values=values,
        architecture=architecture,
        finding=finding,
        outcome=outcome,
        seconds=round(time.monotonic() - began, 4),
        overhead=round(asked - began, 4),
        same_as=before,
        worker=name,
    )


def _propose(
    number: int, controller: Controller, space: ArchitectureSpace, done: Mapping[int, Trial]
) -> tuple[dict[str, Any], Architecture, int | None]:
    """(choices, what they build, an earlier trial of the same): a new one if that can be had."""
    seen = {done[n].architecture.digest: n for n in sorted(done, reverse=True)}
    again: tuple[dict[str, Any], Architecture, int | None] | None = None
    refused = ""
    for draw in range(_DRAWS):
        values = dict(controller.ask(number, draw))
        try:
            architecture = space.build(values)
        except InputError as error:
            refused = str(error)
            continue
        before = seen.get(architecture.digest)
        if before is None:
            return values, architecture, None
        again = again or (values, architecture, before)
    if again is None:
        raise InputError(f"Of {_DRAWS} architectures of this space none can be built: {refused}")
    return again


def _keep(ledger: Ledger, claim: Claim, trial: Trial) -> None:
    outcome = trial.outcome
    values = None
    if outcome.accuracy is not None and outcome.latency is not None:
        values = (outcome.accuracy, outcome.latency)
    ledger.finish(claim, trial.to_json(), values)


def _give_back(ledger: Ledger, claim: Claim) -> None:
    try:
        ledger.give_back(claim)
    except CanaoError:
        raise
    except Exception:
        return  # the storage is gone: others will see that we are
