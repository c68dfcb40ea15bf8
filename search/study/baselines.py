"""A study's predictor and the simpler ones, on the models that the study measured in the end.

The simpler ones learn from what the predictor has learned from: of what ships with canao and of
what was measured to calibrate, the records whose architectures it names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ..predictor.assessment import compared
from ..predictor.baselines import LookupBaseline
from ..predictor.quality import Quality, quality
from ..predictor.recordings import select, shipped
from ..predictor.records import Record
from ..space.architecture import Architecture
from .calibration import Calibration
from .folder import StudyFolder
from .judging import calibration_of
from .result import StudyResult

__all__ = ["COLUMNS", "baseline_rows"]

_UNTIMED = "no dispatch was timed"
_NO = ("", "", "")
COLUMNS = ("", "learned from", "mean error", "within 10 %", "Spearman")


def baseline_rows(folder: StudyFolder, result: StudyResult) -> list[tuple[str, ...]]:
    """The table's rows, the predictor's first; none where nothing was measured, or what is known
    of the device is not here."""
    if not result.measured or not folder.calibration.is_file():
        return []
    known = calibration_of(folder)
    tested = _measured(known, result)
    predicted = np.array([row["predicted_ms"] / known.reference_ms for row in result.measured])
    own = quality(predicted, tested, n_train=len(known.predictor.trained_on))
    try:
        others = compared(_learned(known), tested, seed=folder.plan.seed)
    except InputError:  # what was measured names dispatches that this canao does not know
        others = {}
    rows = [_row("predictor", own), *(_row(name, one) for name, one in others.items())]
    if not others:
        return [*rows, ("simpler ones", "too few measurements", *_NO)]
    return (
        rows if LookupBaseline.name in others else [*rows, (LookupBaseline.name, _UNTIMED, *_NO)]
    )


def _measured(known: Calibration, result: StudyResult) -> list[Record]:
    return [
        Record(
            setting=known.predictor.setting,
            architecture=Architecture.from_json(row["architecture"]),
            relative=row["latency_ms"] / known.reference_ms,
            median_ms=row["latency_ms"],
        )
        for row in result.measured
    ]


def _learned(known: Calibration) -> Sequence[Record]:
    predictor = known.predictor
    setting, names = predictor.setting, set(predictor.trained_on)
    try:
        others = shipped()
    except InputError:
        others = []
    found = [
        one
        for one in (*known.records, *others)
        if one.setting == setting and one.architecture.digest in names
    ]
    if not found:
        return []
    return select(found, emulated=setting.emulated, protocol=setting.protocol)


def _row(name: str, one: Quality) -> tuple[str, ...]:
    rank = f"{one.spearman:.2f}" if one.n_test > 2 else ""
    return name, str(one.n_train), f"{one.mape:.1%}", f"{one.within_10:.0%}", rank
