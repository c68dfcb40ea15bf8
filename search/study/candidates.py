"""Which trials are worth compiling, in which order."""

from __future__ import annotations

from collections.abc import Mapping

from .pareto import front_of
from .specification import Specification
from .trial import Trial

__all__ = ["candidates"]


def candidates(trials: Mapping[int, Trial], specification: Specification) -> list[Trial]:
    """Trials worth compiling, the most promising first: those on the Pareto front of what may
    meet the specification, by accuracy; then the front of the rest, and so on."""
    left = []
    for trial in trials.values():
        if trial.finding is None or trial.outcome.accuracy is None or trial.same_as is not None:
            continue
        limit, room = specification.latency_ms, specification.memory_bytes
        if limit is not None and trial.finding.latency_least > limit:
            continue
        if room is not None and trial.finding.memory_least > room:
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


def _point(trial: Trial) -> tuple[float, float]:
    return trial.outcome.latency or 0.0, trial.outcome.accuracy or 0.0
