"""What a study measures teaches its predictor.

Each measurement of a study, from calibrating to the finals, is a row of ``STUDY/timings.db``, with
the architecture that was compiled. After each round of the finals the predictor learns from all
rows of its setting, and those who wait are predicted anew; at the end it is kept as
``STUDY/predictor.json``, with which the next search on the device begins.

Trials are not judged anew: controllers learn from them, and numbers of two predictors would not be
comparable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ..predictor.predictor import LatencyPredictor
from ..predictor.recordings import of_settings
from ..predictor.records import Record
from .calibration import Calibration, holds
from .folder import StudyFolder
from .judging import problem_of
from .measured import Measured
from .trial import Finding, Trial

__all__ = ["keep_predictor", "relearned", "revised"]


def relearned(known: Calibration, records: Sequence[Record]) -> LatencyPredictor | None:
    """A predictor that learned from ``records`` of the same setting too; None where they are of
    no architecture that the calibration had not measured, or confirm what it has.

    A predictor that learned from the calibration alone learns from all. One of many measurements
    elsewhere stays as it is while it holds, and is adapted once it does not.
    """
    old, setting = known.predictor, known.predictor.setting
    own = {record.architecture for record in known.records}
    stored = {record.architecture for record in records}
    if stored <= own:
        return None
    every = [*(one for one in known.records if one.architecture not in stored), *records]
    # Devices of a pool are of one kind: what one tells holds for all.
    every = [dataclasses.replace(one, setting=setting) for one in every]
    made_here = {*old.trained_on} <= {one.digest for one in own}
    if not made_here and holds(old, every):
        return None
    marks: dict[str, Any] = {"emulated": setting.emulated, "protocol": setting.protocol}
    try:
        if made_here and old.adapted_from is None:
            return LatencyPredictor.fit(every, **marks, seed=old.seed)
        return old.adapt(every, **marks, changed=True)
    except InputError:  # too few are left that were not disturbed
        return None


def revised(
    folder: StudyFolder,
    known: Calibration,
    waiting: Sequence[Trial],
    measured: Sequence[Measured],
) -> list[Trial] | None:
    """``waiting`` as the predictor sees them that has learned from what was ``measured``; None
    where there is nothing new to learn.

    Only the rows of those measurements count, so that a study which goes on after a kill, when its
    store may hold more, decides as it would have."""
    counts = {one.latency_ms for one in measured} | {one.median_ms for one in known.records}
    rows = _stored(folder, known)
    predictor = relearned(known, [row for row in rows if row.median_ms in counts])
    if predictor is None or not waiting:
        return None
    problem = problem_of(folder, calibration=dataclasses.replace(known, predictor=predictor))
    found = problem.predict([trial.architecture for trial in waiting])
    return [_seen(folder, *pair) for pair in zip(waiting, found, strict=True)]


def keep_predictor(folder: StudyFolder, known: Calibration) -> None:
    """Keep what the study taught, for searches to come."""
    predictor = relearned(known, _stored(folder, known))
    (predictor or known.predictor).save(folder.path / "predictor.json")


def _stored(folder: StudyFolder, known: Calibration) -> list[Record]:
    """What the store has of the devices that were calibrated."""
    return of_settings(folder.timings, {record.setting for record in known.records})


def _seen(folder: StudyFolder, trial: Trial, found: Finding) -> Trial:
    """A trial with another prediction; its accuracy stays."""
    assert trial.finding is not None
    latency, memory = found.latency_ms, found.memory_bytes
    return dataclasses.replace(
        trial,
        finding=dataclasses.replace(
            trial.finding,
            latency_ms=latency,
            latency_interval=found.latency_interval,
            memory_bytes=memory,
            outside=found.outside,
        ),
        outcome=dataclasses.replace(
            trial.outcome,
            latency=latency,
            memory=memory,
            violations=folder.plan.specification.violations(latency, memory),
        ),
    )
