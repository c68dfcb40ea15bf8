"""What a study found, as JSON values: the keys of ``canao search --json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from .finalist import Finalist
from .finals import Finals
from .guarantee import misses
from .pareto import front_of
from .specification import Specification
from .trial import Trial
from .units import shown_memory

__all__ = ["StudyResult", "result_of"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """``best``: the model to take, with ``model`` (its directory) and ``bundle``; None where
    none fits, and ``message`` says how near the nearest came. ``pareto``: trials that may meet
    the specification and that no other beats, as estimated. ``measured``: all that was measured
    on the device. ``refused``: who was, at which ``stage`` and why. ``teacher``: its metric and
    its latency on the device. ``study``: the directory.
    """

    best: Mapping[str, Any] | None
    pareto: Sequence[Mapping[str, Any]]
    measured: Sequence[Mapping[str, Any]]
    refused: Sequence[Mapping[str, Any]]
    teacher: Mapping[str, Any]
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
            "measured": [dict(row) for row in self.measured],
            "refused": [dict(row) for row in self.refused],
            "teacher": dict(self.teacher),
            "specification": self.specification.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> StudyResult:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        if not isinstance(value, Mapping) or value.get("version") != _VERSION:
            raise InputError(f"The result of a study has version {_VERSION}.")
        found = {name: item for name, item in value.items() if name != "version"}
        try:
            given = Specification.from_json(found["specification"])
            return cls(**{**found, "specification": given})
        except (KeyError, TypeError) as error:
            raise InputError(f"The result of the study is damaged: {error}.") from error


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
    return StudyResult(
        best=None if best is None else _row(best, teacher["metric"]),
        pareto=[_estimated(trial) for trial in _front(trials)],
        measured=[_row(one, teacher["metric"]) for one in finals.finalists if one.last],
        refused=[*_refused(finals.finalists), *_dropped(trials)],
        teacher=teacher,
        specification=specification,
        trials=len(trials),
        drift=round(finals.drift, 4),
        message="" if best else _nearest(trials, finals.finalists, specification, teacher),
        **facts,
    )


def _front(trials: Mapping[int, Trial]) -> list[Trial]:
    fitting = [t for t in trials.values() if t.outcome.feasible and t.same_as is None]
    return front_of(fitting, lambda t: (t.outcome.latency or 0.0, t.outcome.accuracy or 0.0))


def _estimated(trial: Trial) -> dict[str, Any]:
    finding, outcome = trial.finding, trial.outcome
    return {
        "trial": trial.number,
        "architecture": trial.architecture.to_json(),
        "accuracy": outcome.accuracy,
        "accuracy_interval": finding and finding.accuracy_interval,
        "latency_ms": outcome.latency,
        "latency_interval": finding and finding.latency_interval,
        "memory_bytes": outcome.memory,
    }


def _row(one: Finalist, teacher: float) -> dict[str, Any]:
    last, trained = one.last, one.trained
    assert last is not None
    peaks = [m.peak_bytes for m in one.measured or (last,) if m.peak_bytes is not None]
    found: dict[str, Any] = {
        "trial": one.trial,
        "architecture": one.architecture.to_json(),
        "estimate": one.estimate,
        "predicted_ms": one.predicted_ms,
        "predicted_interval": list(one.predicted_interval),
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
        found |= {
            "model": trained.directory,
            "metric": trained.name,
            "accuracy": trained.metric,
            "accuracy_interval": list(trained.interval),
            "loss": round(teacher - trained.metric, 4),
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


def _nearest(
    trials: Mapping[int, Trial],
    finalists: Sequence[Finalist],
    specification: Specification,
    teacher: Mapping[str, Any],
) -> str:
    """How near the best came, and what would have to give."""
    start = f"No model meets the specification ({specification})"
    offers = []
    for name, option, needed in _LIMITS:
        value = getattr(specification, name)
        if value is None:
            continue
        loose = Specification(**{**vars(specification), name: None})
        near = []
        for one in finalists:
            measured = one.measured or ((one.screened,) if one.screened else ())
            metric = one.trained and one.trained.metric
            if not measured or (one.trained is None and name == "max_loss"):
                continue
            rest = misses(loose, measured, metric=metric or None, teacher=teacher["metric"])
            if not rest and (found := needed(one, teacher["metric"])) is not None:
                near.append((found, one))
        if near:
            found, one = min(near, key=lambda pair: pair[0])
            trained = "" if one.trained else ", not trained yet"
            offers.append(f"{option(found)} would take trial {one.trial}{trained}")
    if offers:
        return f"{start}: {'; '.join(offers)}."
    times = [t.outcome.latency for t in trials.values() if t.outcome.latency is not None]
    sizes = [t.outcome.memory for t in trials.values() if t.outcome.memory is not None]
    if not times or not sizes:
        return f"{start}: none of {len(trials)} could be built."
    return (
        f"{start}: of {len(trials)} trials the fastest is predicted at {min(times):.3g} ms and "
        f"the smallest estimated at {shown_memory(min(sizes))}; ask for less, give more "
        "--trials, or a --space with smaller sizes."
    )


def _upper(one: Finalist, _: float) -> float | None:
    measured = one.measured or ((one.screened,) if one.screened else ())
    return max((m.interval[1] for m in measured), default=None)


def _peak(one: Finalist, _: float) -> float | None:
    measured = one.measured or ((one.screened,) if one.screened else ())
    return max((m.peak_bytes for m in measured if m.peak_bytes is not None), default=None)


def _loss(one: Finalist, teacher: float) -> float | None:
    return None if one.trained is None else teacher - one.trained.metric


_Offer = tuple[str, Callable[[float], str], Callable[[Finalist, float], float | None]]
_LIMITS: tuple[_Offer, ...] = (
    ("latency_ms", lambda value: f"--latency {value * 1.005:.3g}ms", _upper),
    ("memory_bytes", lambda value: f"--memory {value * 1.005 / 1e6:.3g}MB", _peak),
    ("max_loss", lambda value: f"--max-loss {value + 0.01:.2f}%", _loss),
)
