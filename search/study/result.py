"""What a study found, as JSON values: the keys of ``canao search --json``."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..space.architecture import Architecture
from .finalist import Finalist, Judged
from .finals import Finals
from .folder import StudyFolder
from .measured import Measured
from .nearest import nearest
from .pareto import front_of
from .specification import Specification
from .trial import Trial
from .typed import read_fields, read_row

__all__ = ["TEACHER", "StudyResult", "measured_front", "none_possible", "result_of"]

_VERSION = 3
_Interval = tuple[float, float]
TEACHER = {"name": str, "metric": float, "interval": _Interval, "measured": Measured}
"""What is known of a teacher, at least, and of which types."""
_MEASURED = {
    "trial": int,
    "architecture": Architecture,
    "estimate": float,
    "estimate_interval": _Interval | None,
    "predicted_ms": float,
    "predicted_interval": _Interval,
    "outside": str,
    "latency_ms": float,
    "latency_interval": _Interval,
    "memory_bytes": int | None,
    "emulated": bool,
    "stable": bool,
    "trained": bool,
    "bundle": str | None,
    "passed": bool,
}
_TRAINED = {
    "model": str,
    "metric": str,
    "accuracy": float,
    "accuracy_interval": _Interval,
    "accuracy_on": str,
    "compiled": Architecture | None,
    "loss": float,
    "params": int,
}
_ESTIMATED = {"trial": int, "accuracy": float | None, "latency_ms": float | None}
_REFUSED = {"trial": int, "digest": str, "stage": str, "reasons": tuple[str, ...]}


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """``best``: the model to take, with ``model`` (its directory) and ``bundle``; None where
    none fits, and ``message`` says how near the nearest came. ``measured``: all that was measured
    on the device. ``pareto``: those of them that no other beats in accuracy and measured latency:
    the trained ones by their metric, and those that were not trained, among themselves, by the
    estimate. ``estimated``: trials that may meet the specification and that no other beats, as
    estimated. ``refused``: who was, at which ``stage`` and why. ``teacher``: its metric and its
    latency on the device; None where the search ended before it was asked. ``study``: the
    directory.
    """

    best: Mapping[str, Any] | None
    pareto: Sequence[Mapping[str, Any]]
    estimated: Sequence[Mapping[str, Any]]
    measured: Sequence[Mapping[str, Any]]
    refused: Sequence[Mapping[str, Any]]
    teacher: Mapping[str, Any] | None
    specification: Specification
    trials: int
    drift: float
    study: str
    machine: str
    seconds: float
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """The keys of ``canao search --json``."""
        return {
            "version": _VERSION,
            **vars(self),
            "best": None if self.best is None else dict(self.best),
            "pareto": [dict(row) for row in self.pareto],
            "estimated": [dict(row) for row in self.estimated],
            "measured": [dict(row) for row in self.measured],
            "refused": [dict(row) for row in self.refused],
            "teacher": None if self.teacher is None else dict(self.teacher),
            "specification": self.specification.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> StudyResult:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        found = read_fields(cls, value, "a result", version=_VERSION)
        if found["teacher"] is not None:
            read_row(found["teacher"], TEACHER, "the teacher")
        rows = [*found["measured"], *found["pareto"]]
        for row in [*rows, *([] if found["best"] is None else [found["best"]])]:
            read_row(row, _MEASURED, "a measured model")
            if min(row["latency_ms"], row["predicted_ms"]) <= 0:
                raise InputError("a latency of a measured model is not above 0")
            if row["trained"]:
                read_row(row, _TRAINED, "a trained model")
        for row in found["estimated"]:
            read_row(row, _ESTIMATED, "an estimated model")
        for row in found["refused"]:
            read_row(row, _REFUSED, "a refused model")
        if found["best"] is not None and not (found["best"]["trained"] and found["teacher"]):
            raise InputError("the best model was not trained")
        return cls(**found)


def none_possible(folder: StudyFolder, message: str, seconds: float) -> StudyResult:
    """Of a study that ended before its first trial, because the specification is impossible."""
    return StudyResult(
        best=None,
        pareto=[],
        estimated=[],
        measured=[],
        refused=[],
        teacher=None,
        specification=folder.plan.specification,
        trials=0,
        drift=1.0,
        study=str(folder.path.absolute()),
        machine=platform.node(),
        seconds=seconds,
        message=message,
    )


def result_of(
    trials: Mapping[int, Trial],
    finals: Finals,
    *,
    specification: Specification,
    teacher: Mapping[str, Any],
    **facts: Any,
) -> StudyResult:
    """Put a result together; ``facts`` are fields of it."""
    best = next(iter(finals.passed), None)
    measured = [_row(one, teacher["metric"], trials) for one in finals.finalists if one.last]
    return StudyResult(
        best=None if best is None else _row(best, teacher["metric"], trials),
        pareto=measured_front(measured),
        estimated=[_estimated(trial) for trial in _front(trials)],
        measured=measured,
        refused=[*_refused(finals.finalists), *_dropped(trials)],
        teacher=teacher,
        specification=specification,
        trials=len(trials),
        drift=round(finals.drift, 4),
        message="" if best else nearest(trials, finals, specification, teacher),
        **facts,
    )


def measured_front(measured: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the rows of what was measured those that no other beats, the trained ones first.

    A metric and an estimate are of different rows and different weights, so neither can say that
    it is better than the other.
    """
    trained = front_of(
        [row for row in measured if row["trained"]], lambda r: (r["latency_ms"], r["accuracy"])
    )
    others = front_of(
        [row for row in measured if not row["trained"]], lambda r: (r["latency_ms"], r["estimate"])
    )
    return [*trained, *others]


def _front(trials: Mapping[int, Trial]) -> list[Trial]:
    fitting = [t for t in trials.values() if t.outcome.feasible and t.same_as is None]
    return front_of(fitting, lambda t: (t.outcome.latency or 0.0, t.outcome.accuracy or 0.0))


def _estimated(trial: Trial) -> dict[str, Any]:
    finding, outcome = trial.finding, trial.outcome
    return {
        "trial": trial.number,
        "architecture": trial.architecture.to_json(),
        "accuracy": outcome.accuracy,
        "accuracy_interval": _listed(finding.accuracy_interval if finding else None),
        "latency_ms": outcome.latency,
        "latency_interval": _listed(finding.latency_interval if finding else None),
        "memory_bytes": outcome.memory,
    }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _row(one: Finalist, teacher: float, trials: Mapping[int, Trial]) -> dict[str, Any]:
    last, trained = one.last, one.trained
    assert last is not None
    finding = trials[one.trial].finding if one.trial in trials else None
    peaks = [m.peak_bytes for m in one.measured or (last,) if m.peak_bytes is not None]
    found: dict[str, Any] = {
        "trial": one.trial,
        "architecture": one.architecture.to_json(),
        "estimate": one.estimate,
        "estimate_interval": _listed(finding.accuracy_interval if finding else None),
        "predicted_ms": one.predicted_ms,
        "predicted_interval": list(one.predicted_interval),
        "outside": finding.outside if finding else "",
        "latency_ms": last.latency_ms,
        "latency_interval": list(last.interval),
        "memory_bytes": max(peaks) if peaks else None,
        "device": last.device,
        "target": last.target,
        "emulated": last.emulated,
        "stable": all(m.stable for m in one.measured or (last,)),
        "trained": trained is not None,
        "bundle": one.bundle,
        "passed": one.passed,
    }
    if trained is not None:
        judged = one.judged or trained
        found |= {
            "model": trained.directory,
            "compiled": None if one.compiled is None else one.compiled.to_json(),
            "metric": trained.name,
            "accuracy": judged.metric,
            "accuracy_interval": list(judged.interval),
            "accuracy_on": judged.device if isinstance(judged, Judged) else "PyTorch",
            "loss": round(teacher - judged.metric, 4),
            "held": trained.held,
            "params": trained.params,
            "flops": trained.flops,
            "bytes": trained.bytes,
        }
    return found


def _refused(finalists: Sequence[Finalist]) -> list[dict[str, Any]]:
    return [
        {
            "trial": one.trial,
            "digest": one.architecture.digest,
            "stage": "trained" if one.trained else "compiled",
            "reasons": list(one.refused),
        }
        for one in finalists
        if one.refused
    ]


def _dropped(trials: Mapping[int, Trial]) -> list[dict[str, Any]]:
    """Trials that were not worth their accuracy."""
    return [
        {
            "trial": trial.number,
            "digest": trial.architecture.digest,
            "stage": "predicted" if trial.finding else "built",
            "reasons": [trial.outcome.reason],
        }
        for trial in trials.values()
        if trial.outcome.accuracy is None
    ]
