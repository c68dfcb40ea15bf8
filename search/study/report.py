"""A study as one page of HTML, which holds all that it shows and needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..pages import check_report_path, write_page
from ..space.architecture import KINDS, Architecture
from . import drawing, plots
from .baselines import COLUMNS as BASELINES
from .baselines import baseline_rows
from .commands import commands_of
from .folder import StudyFolder
from .result import StudyResult
from .running import looked_at
from .trial import Trial
from .typed import damaged, read_file
from .units import shown_memory

__all__ = ["write_study_report"]


def write_study_report(
    study: str | os.PathLike[str],
    path: str | os.PathLike[str],
    compare: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write the page of a study, finished or not, whole or not at all, and nothing else.

    ``compare``: other studies whose search is drawn beside it, of other controllers, say. Raises
    `InputError` for a bad path, or a directory that is no study or a damaged one.
    """
    place = check_report_path(path)
    folder = StudyFolder.open(study)
    trials = looked_at(folder)
    result = _result(folder)
    others = [StudyFolder.open(other) for other in compare]
    named = [(_told_apart(one, [folder, *others]), looked_at(one)) for one in others]
    unlike = [text for one in others if (text := _unlike(folder, one))]
    best = None if result is None else result.best
    made = None if best is None else best["compiled"] or best["architecture"]
    shapes = [] if made is None else [Architecture.from_json(made)]
    precisions = sorted(
        {
            a.layers[n].form(k).precision
            for a in shapes
            for n in range(len(a.layers))
            for k in KINDS
        }
    )
    points = [] if result is None else plots.quality(result)
    message = [] if result is None or not result.message else [result.message]
    verdict = _verdict(result)
    return write_page(
        place,
        "study.html",
        title=f"A model for {folder.plan.devices[0]}",
        facts=[_introduction(folder, trials)],
        warnings=[*message, *_warnings(result), *unlike],
        notes=[verdict] if verdict else [],
        script=plots.script(),
        front=plots.front_plot(result) if result is not None and result.measured else "",
        trials=plots.trials_plot(trials, folder.plan.specification),
        picture=drawing.draw(shapes[0]) if shapes else "",
        legend=drawing.legend(precisions),
        measured_columns=_MEASURED,
        measured=[] if result is None else [_measured(row, best) for row in result.measured],
        quality=_quality(points),
        baselines_columns=BASELINES,
        baselines=[] if result is None else baseline_rows(folder, result),
        quality_plot=plots.quality_plot(points) if points else "",
        search=plots.search_plot([(_name(folder), trials), *named]),
        compared=[
            _compared(name, of, curve) for (name, of), curve in _curves(folder, trials, named)
        ],
        compared_columns=_COMPARED,
        refused_columns=("trial", "stage", "why"),
        refused=[] if result is None else [_refusal(row) for row in result.refused],
        commands="\n".join(commands_of(folder, result)),
        plan=json.dumps(folder.plan.to_json(), indent=1),
    )


def _result(folder: StudyFolder) -> StudyResult | None:
    with damaged(folder.result, "give the command of the search again, which writes it"):
        found = read_file(folder.result)
        return None if found is None else StudyResult.from_json(found)


def _name(folder: StudyFolder) -> str:
    return f"{folder.plan.controller}, seed {folder.plan.seed}"


def _unlike(folder: StudyFolder, other: StudyFolder) -> str:
    """What makes another study no match for this one, whatever its controller and its seed."""
    differ = [n for n in folder.plan.differences(other.plan) if n not in ("controller", "seed")]
    if not differ:
        return ""
    return (
        f"{other.path.name} ({_name(other)}) has another {', '.join(differ)} than this study, so "
        "not only their controllers differ."
    )


def _told_apart(one: StudyFolder, every: Sequence[StudyFolder]) -> str:
    same = sum(_name(other) == _name(one) for other in every)
    return f"{_name(one)}, {one.path.name}" if same > 1 else _name(one)


def _introduction(folder: StudyFolder, trials: Mapping[int, Trial]) -> str:
    plan = folder.plan
    took = sum(trial.seconds for trial in trials.values())
    over = sum(trial.overhead for trial in trials.values())
    share = f", {over / took:.1%} of it outside of evaluation" if took else ""
    return (
        f"{folder.asked['model']} on {folder.asked['data']}, for {', '.join(plan.devices)} "
        f"({plan.target}, {plan.threads} thread{'s' if plan.threads > 1 else ''}): "
        f"{plan.specification}. {len(trials)} of {folder.trials} trials by {plan.controller}, out "
        f"of {plan.space.size():.3g} architectures, took {took / 60:.1f} minutes of work{share}."
    )


def _verdict(result: StudyResult | None) -> str:
    if result is None:
        return "The study is not finished: nothing was measured yet."
    best = result.best
    if best is None or result.teacher is None:
        return ""
    faster = result.teacher["measured"]["latency_ms"] / best["latency_ms"]
    memory = best["memory_bytes"]
    room = "" if memory is None else f", {shown_memory(memory)} at its peak"
    return (
        f"Trial {best['trial']}: {best['metric']} {best['accuracy']:.2f} (teacher "
        f"{result.teacher['metric']:.2f}), {best['latency_ms']:.3g} ms and at most "
        f"{best['latency_interval'][1]:.3g} ms{room}; {faster:.1f} times as fast as the teacher."
    )


def _warnings(result: StudyResult | None) -> list[str]:
    if result is None:
        return []
    found = []
    if any(row["emulated"] for row in result.measured):
        found.append("Latencies are of an emulated device: no times of real silicon.")
    if outside := next((row["outside"] for row in result.measured if row["outside"]), ""):
        found.append(f"Predictions marked as outside are of what was never measured: {outside}.")
    if result.best is not None and not result.best["stable"]:
        found.append("The measurements of the chosen model were not stable: measure it again.")
    return found


_MEASURED = (
    *("trial", "metric", "95 % interval", "lost", "latency, ms", "95 % interval"),
    *("predicted, ms", "memory", "parameters", ""),
)


def _measured(row: Mapping[str, Any], best: Mapping[str, Any] | None) -> tuple[str, ...]:
    trained = row["trained"]
    low, high = row["latency_interval"]
    interval = row["accuracy_interval" if trained else "estimate_interval"]
    is_best = best is not None and best["trial"] == row["trial"]
    verdict = "best" if is_best else "fits" if row["passed"] else "refused" if trained else ""
    return (
        str(row["trial"]),
        f"{row['accuracy']:.2f}" if trained else f"about {row['estimate']:.2f}, not trained",
        "" if interval is None else "{:.2f} to {:.2f}".format(*interval),
        f"{row['loss']:.2f}" if trained else "",
        f"{row['latency_ms']:.3g}" + (" (emulated)" if row["emulated"] else ""),
        f"{low:.3g} to {high:.3g}",
        f"{row['predicted_ms']:.3g}" + (" (outside)" if row["outside"] else ""),
        "" if row["memory_bytes"] is None else shown_memory(row["memory_bytes"]),
        f"{row['params'] / 1e6:.2f} M" if trained else "",
        verdict,
    )


def _quality(points: Sequence[tuple[float, float, tuple[float, float], int]]) -> str:
    if not points:
        return ""
    errors = sorted(abs(predicted / measured - 1) for predicted, measured, _, _ in points)
    inside = sum(low <= measured <= high for _, measured, (low, high), _ in points)
    close = sum(error <= 0.1 for error in errors)
    return (
        f"Of {len(points)} models that were measured, {close} were predicted to within 10 %, and "
        f"{inside} lie in the predictor's interval, which should hold nine of ten; half of the "
        f"errors are below {errors[len(errors) // 2]:.1%}. These models were chosen for being "
        "predicted to be good, which a fair sample is not."
    )


_COMPARED = ("controller", "trials", "fit", "best accuracy", "hypervolume")


def _curves(
    folder: StudyFolder,
    trials: Mapping[int, Trial],
    others: Sequence[tuple[str, Mapping[int, Trial]]],
) -> list[tuple[tuple[str, Mapping[int, Trial]], list[float]]]:
    studies = [(_name(folder), trials), *others]
    return list(zip(studies, plots.curves(studies), strict=True))


def _compared(name: str, trials: Mapping[int, Trial], curve: Sequence[float]) -> tuple[str, ...]:
    fitting = [trial for trial in trials.values() if trial.outcome.feasible]
    best = max((trial.outcome.accuracy or 0.0 for trial in fitting), default=None)
    return (
        name,
        str(len(trials)),
        str(len(fitting)),
        "" if best is None else f"{best:.2f}",
        f"{curve[-1]:.3g}" if curve else "",
    )


def _refusal(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["trial"]), str(row["stage"]), "; ".join(row["reasons"])
