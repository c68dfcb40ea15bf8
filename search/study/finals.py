"""From trials to a model that is certain to meet the specification.

What is cheap comes first: the most promising trials are compiled with the weights they inherit,
and measured. The most accurate of those that are fast and small enough are trained in full,
compiled, checked against PyTorch and measured again, twice. Whoever misses a limit is refused,
and the next one is trained, until as many passed as were asked for.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ...errors import CanaoError, CompileError, DeviceError, InputError, NumericsError
from ..space.architecture import Architecture
from .finalist import Finalist, Trained
from .folder import StudyFolder
from .guarantee import misses
from .measured import Measured
from .pareto import front_of
from .pool import DevicePool
from .specification import Specification
from .trial import Trial

__all__ = ["Finals", "Workbench", "candidates", "hold_finals"]

_SCREENED = 4
_MOST_TRAINED = 3
_TIMES = 2


class Workbench(Protocol):
    """Makes and measures models."""

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        """Compile the architecture with the teacher's weights; the bundle."""

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        """Train it in full; goes on where it was killed."""

    def compile(self, architecture: Architecture, trained: Trained, folder: Path) -> Path:
        """Compile a trained model and check its numbers; the bundle."""

    def measure(self, bundle: Path, device: str) -> Measured:
        """Measure a bundle."""


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Everyone that came so far, the best one first among those that passed. ``drift``: measured
    over predicted latency, the median of all."""

    finalists: tuple[Finalist, ...]
    drift: float

    @property
    def passed(self) -> list[Finalist]:
        """Those that meet everything, by accuracy on rows held out, the best first."""
        found = [one for one in self.finalists if one.passed]
        return sorted(
            found, key=lambda one: (-(one.trained.held if one.trained else 0), one.trial)
        )


def candidates(trials: Mapping[int, Trial], specification: Specification) -> list[Trial]:
    """Trials worth compiling, the most promising first: those on the Pareto front of what may
    meet the specification, by accuracy; then the front of the rest, and so on."""
    left = []
    for trial in trials.values():
        if trial.finding is None or trial.outcome.accuracy is None or trial.same_as is not None:
            continue
        limit, room = specification.latency_ms, specification.memory_bytes
        if limit is not None and trial.finding.latency_interval[0] > limit:
            continue
        if room is not None and trial.finding.memory_bytes > room:
            continue
        left.append(trial)
    # Who meets the limits by the middle of the prediction goes before who may, with luck.
    found: list[Trial] = []
    for feasible in (True, False):
        rest = [trial for trial in left if trial.outcome.feasible is feasible]
        while rest:
            front = front_of(rest, _point)
            found += sorted(front, key=lambda trial: -(trial.outcome.accuracy or 0.0))
            rest = [trial for trial in rest if trial not in front]
    return found


def hold_finals(
    folder: StudyFolder,
    trials: Mapping[int, Trial],
    bench: Workbench,
    pool: DevicePool[Measured],
    *,
    teacher: float,
    tell: Callable[[str], None],
) -> Finals:
    """See the module's docstring. ``teacher``: its metric on the development split.

    What is done is kept in the study's directory, and not done again. Raises `DeviceError` where
    all devices are lost.
    """
    plan = folder.plan
    order = candidates(trials, plan.specification)
    entrants: list[Finalist] = []
    while order and not _enough(entrants, plan.finalists):
        batch, order = _next(order, entrants, plan.specification, _SCREENED * plan.finalists)
        if not batch:
            break
        fresh = _screen(folder, batch, bench, pool, tell)
        entrants += fresh
        for one in _by_promise(fresh):
            if _enough(entrants, plan.finalists):
                break
            place = entrants.index(one)
            entrants[place] = _finish(folder, one, bench, pool, teacher, tell)
    return Finals(finalists=tuple(entrants), drift=_drift(entrants))


def _enough(entrants: Sequence[Finalist], wanted: int) -> bool:
    passed = sum(one.passed for one in entrants)
    trained = sum(one.trained is not None for one in entrants)
    return passed >= wanted or trained >= _MOST_TRAINED * wanted


def _point(trial: Trial) -> tuple[float, float]:
    return trial.outcome.latency or 0.0, trial.outcome.accuracy or 0.0


def _next(
    order: list[Trial], known: Sequence[Finalist], specification: Specification, count: int
) -> tuple[list[Trial], list[Trial]]:
    """The next ones to compile, and who is left: predictions are scaled by what was measured."""
    drift, limit = _drift(known), specification.latency_ms
    likely = [
        trial
        for trial in order
        if limit is None
        or trial.finding is None
        or trial.finding.latency_interval[0] * drift <= limit
    ]
    return likely[:count], likely[count:]


def _drift(known: Sequence[Finalist]) -> float:
    ratios = [
        one.last.latency_ms / one.predicted_ms for one in known if one.last and one.predicted_ms
    ]
    return statistics.median(ratios) if ratios else 1.0


def _by_promise(finalists: Sequence[Finalist]) -> list[Finalist]:
    return sorted(
        (one for one in finalists if not one.refused), key=lambda one: (-one.estimate, one.trial)
    )


def _screen(
    folder: StudyFolder,
    batch: Sequence[Trial],
    bench: Workbench,
    pool: DevicePool[Measured],
    tell: Callable[[str], None],
) -> list[Finalist]:
    """Compile with inherited weights and measure; refuse who is too slow or too large."""
    found: list[Finalist] = []
    for number, trial in enumerate(batch, 1):
        place = folder.finalist(trial.architecture.digest)
        one = Finalist.read(place) or _entered(trial)
        if one.screened is None and not one.refused:
            tell(f"compiling candidate {number} of {len(batch)} (trial {trial.number})")
            one = _tried(one, partial(_inherited, one, bench, place))
            one.save(place)
        found.append(one)
    waiting = [at for at, one in enumerate(found) if _unmeasured(one)]
    tell(f"measuring {len(waiting)} candidates")
    jobs = [_job(bench, found[at]) for at in waiting]
    for at, result in zip(waiting, pool.run(jobs), strict=True):
        one = found[at]
        if isinstance(result, CanaoError):
            one = one.replace(refused=(f"could not be measured: {result}",))
        else:
            reasons = misses(folder.plan.specification, [result])
            one = one.replace(screened=result, refused=tuple(reasons))
        found[at] = one.save(folder.finalist(one.architecture.digest))
    return found


def _finish(
    folder: StudyFolder,
    one: Finalist,
    bench: Workbench,
    pool: DevicePool[Measured],
    teacher: float,
    tell: Callable[[str], None],
) -> Finalist:
    """Train, compile, measure, judge."""
    place = folder.finalist(one.architecture.digest)
    specification = folder.plan.specification
    if one.trained is None:
        tell(f"training trial {one.trial}")
        one = _tried(one, lambda: one.replace(trained=bench.train(one.architecture, place)))
        one.save(place)
    if not one.refused and not one.measured:
        tell(f"compiling trial {one.trial}")
        one = _tried(one, lambda: _compiled(one, bench, place)).save(place)
    if not one.refused and not one.measured:
        tell(f"measuring trial {one.trial}")
        results = pool.run([_job(bench, one)] * _TIMES)
        errors = [result for result in results if isinstance(result, CanaoError)]
        if errors:
            return one.replace(refused=(f"could not be measured: {errors[0]}",)).save(place)
        one = one.replace(measured=tuple(r for r in results if isinstance(r, Measured)))
    if not one.refused and one.trained is not None:
        reasons = misses(
            specification,
            one.measured,
            metric=one.trained.metric,
            teacher=teacher,
            name=one.trained.name,
        )
        one = one.replace(refused=tuple(reasons))
    return one.save(place)


def _entered(trial: Trial) -> Finalist:
    assert trial.finding is not None
    return Finalist(
        trial=trial.number,
        architecture=trial.architecture,
        estimate=trial.outcome.accuracy or 0.0,
        predicted_ms=trial.finding.latency_ms,
        predicted_interval=trial.finding.latency_interval,
    )


def _unmeasured(one: Finalist) -> bool:
    return one.screened is None and one.bundle is not None and not one.refused


def _inherited(one: Finalist, bench: Workbench, place: Path) -> Finalist:
    return one.replace(bundle=str(bench.inherit(one.architecture, place)))


def _compiled(one: Finalist, bench: Workbench, place: Path) -> Finalist:
    assert one.trained is not None
    return one.replace(bundle=str(bench.compile(one.architecture, one.trained, place)))


def _tried(one: Finalist, step: Callable[[], Finalist]) -> Finalist:
    """What a step gives; refused where it fails for what the model is."""
    try:
        return step()
    except DeviceError:
        raise
    except (CompileError, InputError, NumericsError) as error:
        return one.replace(refused=(str(error),))


def _job(bench: Workbench, one: Finalist) -> Callable[[str], Measured]:
    assert one.bundle is not None
    bundle = Path(one.bundle)
    return lambda device: bench.measure(bundle, device)
