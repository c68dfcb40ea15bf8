"""From trials to a model that is certain to meet the specification.

What is cheap comes first: the most promising trials are compiled with the weights they inherit,
and measured; those that are fast and small enough are trained for a few steps (`screening`). The
most accurate of them are trained in full, compiled, checked against PyTorch, measured again
(twice), and evaluated on the device. Whoever misses a limit is refused, and the next one is
trained, until as many passed as were asked for, or three times as many were trained. What training
gained so far tells who is too far below the teacher to be worth it: those come last, and only if
nobody passed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import CanaoError
from .candidates import candidates
from .finalist import Finalist
from .folder import StudyFolder
from .guarantee import misses
from .identity import strangers
from .measured import Measured
from .pool import DevicePool
from .screening import screen
from .specification import Specification
from .trial import Trial
from .workbench import INHERITED, Workbench, job, tried

__all__ = ["Finals", "hold_finals"]

Revise = Callable[[Sequence[Trial], Sequence[Measured]], Sequence[Trial] | None]
"""Predicts trials anew after what was measured; None where nothing was learned."""

_SCREENED = 4
_MOST_TRAINED = 3
_TIMES = 2
_LUCK = 1.0
"""Points of the metric."""


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Everyone that came so far, the best one first among those that passed. ``drift``: measured
    over predicted latency, the median of all. ``untried``: how many more might have passed."""

    finalists: tuple[Finalist, ...]
    drift: float
    untried: int = 0

    @property
    def passed(self) -> list[Finalist]:
        """Those that meet everything, by accuracy on rows held out, the best first."""
        found = [one for one in self.finalists if one.passed]
        return sorted(
            found, key=lambda one: (-(one.trained.held if one.trained else 0), one.trial)
        )


def hold_finals(
    folder: StudyFolder,
    trials: Mapping[int, Trial],
    bench: Workbench,
    pool: DevicePool[Any],
    *,
    teacher: float,
    here: Mapping[str, str],
    tell: Callable[[str], None],
    revise: Revise = lambda waiting, measured: None,
) -> Finals:
    """See the module's docstring. ``teacher``: its metric on the development split; ``here``: the
    fingerprint of each device of the study, by name: what others measured does not count;
    ``revise``: those who wait, as they are seen after what was measured.

    What is done is kept in the study's directory, and not done again. Raises `DeviceError` where
    all devices are lost.
    """
    plan = folder.plan
    order = candidates(trials, plan.specification)
    entrants: list[Finalist] = []
    drift = 1.0
    allowed = plan.specification.max_loss
    least = None if allowed is None else teacher - allowed

    def finish(one: Finalist) -> Finalist:
        return _finish(folder, one, bench, pool, teacher, here, tell)

    def near(accuracy: float) -> bool:
        return _near(accuracy, entrants, least)

    while order and not _enough(entrants, plan.finalists):
        batch, order = _next(order, drift, plan.specification, _SCREENED * plan.finalists, near)
        if not batch:
            break
        wanted = plan.finalists - sum(one.passed for one in entrants)
        fresh = screen(folder, batch, bench, pool, here=here, wanted=wanted, tell=tell)
        entrants += fresh
        for one in _by_promise(fresh):
            if _enough(entrants, plan.finalists) or not near(one.promise):
                break
            entrants[entrants.index(one)] = finish(one)
        again = revise(order, _measurements(entrants))
        drift = 1.0 if again else _drift(entrants)
        if again:
            order = candidates({trial.number: trial for trial in again}, plan.specification)
    for one in _by_promise([one for one in entrants if one.trained is None]):
        if _enough(entrants, plan.finalists) or any(other.passed for other in entrants):
            break
        entrants[entrants.index(one)] = finish(one)
    waiting = sum(not one.refused and one.trained is None for one in entrants)
    return Finals(finalists=tuple(entrants), drift=_drift(entrants), untried=len(order) + waiting)


def _enough(entrants: Sequence[Finalist], wanted: int) -> bool:
    passed = sum(one.passed for one in entrants)
    trained = sum(one.trained is not None for one in entrants)
    return passed >= wanted or trained >= _MOST_TRAINED * wanted


def _near(accuracy: float, entrants: Sequence[Finalist], least: float | None) -> bool:
    """Whether training may bring that much ``accuracy`` to the ``least`` that is allowed: it may
    gain a little more than it ever did in this study."""
    gains = [one.metric - one.promise for one in entrants if one.metric is not None]
    return least is None or not gains or accuracy + max(gains) + _LUCK >= least


def _next(
    order: list[Trial],
    drift: float,
    specification: Specification,
    count: int,
    near: Callable[[float], bool],
) -> tuple[list[Trial], list[Trial]]:
    """The next ones to compile, of whom training may make enough, and who is left: predictions
    are scaled by what was measured."""
    limit = specification.latency_ms
    likely = [
        trial
        for trial in order
        if limit is None or trial.finding is None or trial.finding.latency_least * drift <= limit
    ]
    chosen = [trial for trial in likely if near(trial.outcome.accuracy or 0.0)][:count]
    return chosen, [trial for trial in likely if trial not in chosen]


def _drift(known: Sequence[Finalist]) -> float:
    ratios = [
        one.last.latency_ms / one.predicted_ms for one in known if one.last and one.predicted_ms
    ]
    return statistics.median(ratios) if ratios else 1.0


def _measurements(entrants: Sequence[Finalist]) -> list[Measured]:
    found = [(*one.measured, *([one.screened] if one.screened else [])) for one in entrants]
    return [measured for each in found for measured in each]


def _by_promise(finalists: Sequence[Finalist]) -> list[Finalist]:
    return sorted(
        (one for one in finalists if not one.refused), key=lambda one: (-one.promise, one.trial)
    )


def _finish(
    folder: StudyFolder,
    one: Finalist,
    bench: Workbench,
    pool: DevicePool[Any],
    teacher: float,
    here: Mapping[str, str],
    tell: Callable[[str], None],
) -> Finalist:
    """Train, compile, measure, judge."""
    place = folder.finalist(one.architecture.digest)
    specification = folder.plan.specification
    if one.trained is None:
        tell(f"training trial {one.trial}")
        one = tried(one, lambda: one.replace(trained=bench.train(one.architecture, place)))
        one.save(place)
    if not one.refused and not _is_compiled(one):
        tell(f"compiling trial {one.trial}")
        one = tried(one, lambda: _compiled(one, bench, place)).save(place)
    if not one.refused and not one.measured:
        tell(f"measuring trial {one.trial}")
        results = pool.run([job(bench, one)] * _TIMES)
        errors = [result for result in results if isinstance(result, CanaoError)]
        if errors:
            return one.replace(refused=(f"could not be measured: {errors[0]}",)).save(place)
        one = one.replace(measured=tuple(r for r in results if isinstance(r, Measured)))
    # An emulator would take hours; there the numbers were checked against PyTorch's.
    if not one.refused and one.judged is None and not one.emulated:
        one.save(place)
        tell(f"evaluating trial {one.trial} on the device")
        (judged,) = pool.run([partial(bench.evaluate, one.architecture, Path(str(one.bundle)))])
        if isinstance(judged, CanaoError):
            return one.replace(refused=(f"could not be evaluated: {judged}",)).save(place)
        one = one.replace(judged=judged)
    if not one.refused and one.trained is not None:
        reasons = strangers(one.measured, here) or misses(
            specification,
            one.measured,
            metric=one.metric,
            teacher=teacher,
            name=one.trained.name,
        )
        one = one.replace(refused=tuple(reasons))
    return one.save(place)


def _is_compiled(one: Finalist) -> bool:
    """Whether its bundle is of the trained model."""
    return one.bundle is not None and Path(one.bundle).name != INHERITED


def _compiled(one: Finalist, bench: Workbench, place: Path) -> Finalist:
    assert one.trained is not None
    bundle, compiled = bench.compile(one.architecture, one.trained, place)
    return one.replace(bundle=str(bundle), compiled=compiled)
