"""A predictor tried on architectures that it has not seen, beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from .baselines import baselines
from .prediction import Prediction
from .predictor import LatencyPredictor, workloads_of
from .quality import Quality, quality, repeatability, split
from .records import Record

__all__ = ["Assessment", "assess", "assess_adapted", "assess_fitted", "compared", "described"]

_LEAST = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Assessment:
    """``predictions`` of the ``tested`` records by a ``predictor`` that learned from others, and
    their ``quality``; ``others`` by name of baseline, fitted on the same, as far as it is here,
    and tried on the same; ``repeats``: how well measuring itself repeats
    (`quality.repeatability`). Where nothing was there to try it on, ``quality`` is None and
    ``untried`` says why."""

    predictor: LatencyPredictor
    tested: Sequence[Record]
    predictions: Sequence[Prediction]
    quality: Quality | None
    others: Mapping[str, Quality] = field(default_factory=dict)
    repeats: Mapping[str, float] | None = None
    untried: str = ""

    def to_json(self) -> dict[str, Any]:
        """The quality's keys (None where it was not tried), and those of what it is held
        against."""
        nothing = dict.fromkeys(Quality.__dataclass_fields__)
        return {
            **(nothing if self.quality is None else self.quality.to_json()),
            "untried": self.untried,
            "setting": self.predictor.setting.to_json(),
            "outside": sum(one.outside for one in self.predictions),
            "baselines": {name: one.to_json() for name, one in self.others.items()},
            "repeats": None if self.repeats is None else dict(self.repeats),
        }


def assess(records: Sequence[Record], *, seed: int = 0) -> Assessment:
    """Fit on some records of one setting, drawn by ``seed``, and try on the rest (`split`)."""
    train, test = split(records, seed)
    predictor = LatencyPredictor.fit(train, **_of(train), seed=seed)
    return _tried(predictor, test, records, compared(train, test, seed=seed))


def assess_adapted(
    source: LatencyPredictor, records: Sequence[Record], *, samples: int, seed: int = 0
) -> Assessment:
    """Adapt ``source`` by so many records of another setting, drawn by ``seed``; try on the rest.

    Raises `InputError` where nothing would be left to try it on, and as `adapt` does.
    """
    if not 0 < samples < len(records):
        raise InputError(
            f"{len(records)} architectures were measured: {samples} of them to adapt by leave "
            "none to try the predictor on."
        )
    drawn = set(np.random.default_rng(seed).permutation(len(records))[:samples].tolist())
    few = [one for index, one in enumerate(records) if index in drawn]
    rest = [one for index, one in enumerate(records) if index not in drawn]
    predictor = source.adapt(few, **_of(few))
    return _tried(predictor, rest, records, compared(few, rest, seed=seed))


def assess_fitted(predictor: LatencyPredictor, records: Sequence[Record]) -> Assessment:
    """Try a predictor on what it has not learned from, among the records of its setting; the
    baselines learn from what it has, of the same records.

    Raises `InputError` where the records are of another setting, or all were learned from.
    """
    setting = records[0].setting
    if setting != predictor.setting:
        raise InputError(
            f"The predictor is of {predictor.setting}, and the measurements of {setting}: they "
            "cannot be compared."
        )
    known = set(predictor.trained_on)
    unseen = [one for one in records if one.architecture.digest not in known]
    if not unseen:
        raise InputError("The predictor learned from every one of these measurements already.")
    learned = [one for one in records if one.architecture.digest in known]
    return _tried(predictor, unseen, records, compared(learned, unseen, seed=predictor.seed))


def described(predictor: LatencyPredictor, records: Sequence[Record]) -> Assessment:
    """As `assess_fitted`; where that has nothing to try it on, the predictor as it is."""
    try:
        return assess_fitted(predictor, records)
    except InputError as error:
        return Assessment(
            predictor=predictor, tested=(), predictions=(), quality=None, untried=str(error)
        )


def compared(
    learned: Sequence[Record], tested: Sequence[Record], *, seed: int
) -> dict[str, Quality]:
    """The quality of each baseline fitted on the records ``learned``, by name: none where they are
    of fewer than 5 architectures."""
    if len(learned) < _LEAST:
        return {}
    return {
        one.name: quality(one.predict(tested), tested, n_train=len(learned))
        for one in baselines(learned, seed=seed)
    }


def _tried(
    predictor: LatencyPredictor,
    tested: Sequence[Record],
    records: Sequence[Record],
    others: Mapping[str, Quality],
) -> Assessment:
    predictions = predictor.predict_workloads(workloads_of(tested))
    return Assessment(
        predictor=predictor,
        tested=tested,
        predictions=predictions,
        quality=quality(predictions, tested, n_train=len(predictor.trained_on)),
        others=others,
        repeats=repeatability(records),
    )


def _of(records: Sequence[Record]) -> dict[str, Any]:
    """What chooses the setting of these records, all of one, again."""
    setting = records[0].setting
    return {"emulated": setting.emulated, "protocol": setting.protocol}
