"""Which trial is whose: each is done once, by one worker, whatever ends the others.

A trial of a study may take several *attempts*, each a trial of Optuna's storage that says which
number it is of and who is at it. Of the attempts of one number the first one that is alive or
finished counts. Storages number attempts one after another, so whoever claims looks, after
making his own, whether an earlier one counts: if so, his own is withdrawn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ...errors import InputError
from .liveness import BEAT, Heart, Watch, Worker

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["Claim", "Ledger", "finished_in"]

_TRIAL = "canao:trial"
_WORKER = "canao:worker"
_COUNT = "canao:count"
_RECORD = "canao:record"
_LOST = "canao:lost"
_PLAN = "canao:plan"
_PAUSE = 0.3
_LONGEST = 5.0
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that is ours. ``lost``: how many processes ended while they were at it."""

    number: int
    attempt: int
    lost: int


class Ledger:
    """The trials of the study ``name`` in ``storage``, for one worker.

    ``plan``: what decides the study, kept with it. Raises `InputError` where the storage holds
    another study under that name, or what is no study of canao's.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        plan: str,
        worker: Worker,
        watch: Watch,
        beat: float = BEAT,
    ) -> None:
        self._storage = storage
        self._worker = worker
        self._watch = watch
        self._beat = beat
        try:
            self._study = storage.create_new_study(
                (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), name
            )
            storage.set_study_user_attr(self._study, _PLAN, plan)
        except DuplicatedStudyError:
            self._study = _find(storage, name, plan)

    def finished(self) -> dict[int, Mapping[str, Any]]:
        """The record of each number that is done."""
        return _finished(self._attempts())

    def claim(self, numbers: Iterable[int]) -> Claim | None:
        """The first of these numbers that nobody is at; None where somebody is at all of them.

        Attempts of the dead are given up on the way.
        """
        wanted = list(numbers)
        while True:
            taken, lost = self._taken()
            number = next((n for n in wanted if n not in taken), None)
            if number is None:
                return None
            attempt = self._storage.create_new_trial(self._study, self._template(number))
            own = self._storage.get_trial(attempt).number
            rivals = [a for a in self._attempts() if _number(a) == number and a.number < own]
            if not any(self._counts(rival) for rival in rivals):
                return Claim(number=number, attempt=attempt, lost=lost.get(number, 0))
            self._end(attempt)

    def once(self, number: int, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The record of ``number``, below 0, which ``make`` makes if nobody has: everybody gets
        the same, and waits where somebody is at it."""
        pause = _PAUSE
        while True:
            found = self.finished().get(number)
            if found is not None:
                return found
            claim = self.claim([number])
            if claim is None:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                continue
            try:
                with self.beating(claim):
                    record = make()
            except BaseException:
                self.give_back(claim)
                raise
            self.finish(claim, record, None)

    def awaited(self, number: int, patience: float) -> Mapping[str, Any] | None:
        """The record of ``number``, below 0, which somebody else makes: None where for
        ``patience`` seconds nobody is at it."""
        since = time.monotonic()
        while time.monotonic() - since < patience:
            found = self.finished().get(number)
            if found is not None:
                return found
            if number in self._taken()[0]:
                since = time.monotonic()
            time.sleep(min(_LONGEST, patience / 4))
        return None

    def beating(self, claim: Claim) -> Heart:
        """A block in which others see that we are at it."""

        def beat(number: int) -> None:
            self._storage.set_trial_user_attr(claim.attempt, _COUNT, number)

        return Heart(beat, self._beat)

    def finish(
        self, claim: Claim, record: Mapping[str, Any], values: tuple[float, float] | None
    ) -> bool:
        """Keep what a trial found; ``values``: accuracy and latency, None where there is none.

        False where others took us for dead and the trial for theirs: then nothing is kept.
        """
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        try:
            self._storage.set_trial_user_attr(claim.attempt, _RECORD, dict(record))
            self._storage.set_trial_state_values(claim.attempt, state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def give_back(self, claim: Claim) -> None:
        """Let others have a trial."""
        self._end(claim.attempt)

    def bury_process(self, process: int) -> None:
        """Give up what a worker of this machine was at that ended by itself, and count that."""
        for attempt in self._attempts():
            known = _worker(attempt)
            if attempt.state is not TrialState.RUNNING or known.get("process") != process:
                continue
            if known.get("home") != self._worker.home:
                continue
            # If it is finished, somebody else was faster.
            with contextlib.suppress(UpdateFinishedTrialError):
                self._storage.set_trial_user_attr(attempt._trial_id, _LOST, True)
            self._end(attempt._trial_id)

    def _taken(self) -> tuple[set[int], dict[int, int]]:
        taken: set[int] = set()
        lost: dict[int, int] = {}
        for attempt in self._attempts():
            number = _number(attempt)
            if self._counts(attempt):
                taken.add(number)
            elif attempt.state is TrialState.RUNNING:
                self._end(attempt._trial_id)
            if attempt.user_attrs.get(_LOST):
                lost[number] = lost.get(number, 0) + 1
        return taken, lost

    def _counts(self, attempt: FrozenTrial) -> bool:
        if attempt.state in _FINISHED:
            return True
        if attempt.state is not TrialState.RUNNING:
            return False
        worker = _worker(attempt)
        if worker.get("name") == self._worker.name:
            return True
        count = attempt.user_attrs.get(_COUNT, 0)
        return not self._watch.is_dead(attempt._trial_id, worker, count)

    def _attempts(self) -> list[FrozenTrial]:
        return _attempts_of(self._storage, self._study)

    def _end(self, attempt: int) -> None:
        # If it is finished, somebody else was faster, or it is done.
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(attempt, TrialState.FAIL)

    def _template(self, number: int) -> FrozenTrial:
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={_TRIAL: number, _WORKER: self._worker.to_json(), _COUNT: 0},
            system_attrs={},
            intermediate_values={},
        )


def finished_in(storage: BaseStorage, name: str, plan: str) -> dict[int, Mapping[str, Any]]:
    """What `Ledger.finished` gives, for who only looks: nothing is written. Nothing is finished
    of a study that is not there."""
    try:
        study = _find(storage, name, plan)
    except KeyError:
        return {}
    return _finished(_attempts_of(storage, study))


def _find(storage: BaseStorage, name: str, plan: str) -> int:
    study = storage.get_study_id_from_name(name)
    if storage.get_study_user_attrs(study).get(_PLAN, plan) != plan:
        raise InputError(
            f"The storage holds another study by the name {name}: name another storage."
        )
    return study


def _attempts_of(storage: BaseStorage, study: int) -> list[FrozenTrial]:
    found = storage.get_all_trials(study, deepcopy=False)
    if not all(isinstance(attempt.user_attrs, Mapping) for attempt in found):
        raise InputError("The storage's study has trials that are not canao's: name another.")
    return found


def _finished(attempts: Iterable[FrozenTrial]) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for attempt in attempts:
        number = _number(attempt)
        if attempt.state in _FINISHED and number not in found:
            record = attempt.user_attrs.get(_RECORD)
            if not isinstance(record, Mapping):
                raise InputError(f"Trial {number} of the study has no record: it is damaged.")
            found[number] = record
    return found


def _number(attempt: FrozenTrial) -> int:
    number = attempt.user_attrs.get(_TRIAL)
    if type(number) is not int:
        raise InputError("The storage's study has trials that are not canao's: name another.")
    return number


def _worker(attempt: FrozenTrial) -> Mapping[str, Any]:
    worker = attempt.user_attrs.get(_WORKER, {})
    if not isinstance(worker, Mapping):
        raise InputError(f"Trial {_number(attempt)} of the study is nobody's: it is damaged.")
    return worker
