"""A study's judge: the predictor of its calibration and the weights that architectures share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .calibration import Calibration
from .folder import StudyFolder
from .problem import Estimator, Problem
from .typed import damaged, read_file, read_row

if TYPE_CHECKING:
    from ..accuracy.estimator import AccuracyEstimator

__all__ = ["calibration_of", "judge_of", "problem_of"]


def judge_of(folder: StudyFolder, tell: Callable[[str], None] | None = None) -> AccuracyEstimator:
    """The accuracy estimator of a study; its teacher and shared weights are kept in the cache."""
    from ..accuracy.estimator import AccuracyEstimator

    asked: dict[str, Any] = dict(folder.asked)
    asked.pop("predictor", None)
    return AccuracyEstimator.prepare(
        asked.pop("model"),
        space=folder.plan.space,
        options=folder.plan.options,
        progress=tell,
        **asked,
    )


def calibration_of(folder: StudyFolder) -> Calibration:
    """What was kept of the device; raises `InputError` where it is damaged."""
    file = folder.calibration
    with damaged(file, "give the command of the search again, which writes it"):
        return Calibration.from_json(read_row(read_file(file), {}, "a calibration"))


def problem_of(
    folder: StudyFolder,
    *,
    estimator: Estimator | None = None,
    calibration: Calibration | None = None,
) -> Problem:
    """What trials of a study are judged by; the estimator is made when it is first asked."""
    known = calibration or calibration_of(folder)
    return Problem(
        predictor=known.predictor,
        reference_ms=known.reference_ms,
        memory=known.memory,
        memory_margin=known.memory_margin,
        estimator=estimator or _Late(folder),
        specification=folder.plan.specification,
    )


class _Late:
    """An estimator that is made when it is first asked."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._made: AccuracyEstimator | None = None

    def evaluate(self, architecture: Any) -> Any:
        """See `Estimator`."""
        if self._made is None:
            self._made = judge_of(self._folder)
        return self._made.evaluate(architecture)
