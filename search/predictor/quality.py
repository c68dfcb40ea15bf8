"""How good a predictor is: on architectures that it has not seen, beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ..metrics import spearman
from .prediction import Prediction
from .records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_TRAIN", "Quality", "errors_of", "kendall", "quality", "repeatability", "split"]

MOST_TRAIN = 150
"""The most architectures that a predictor is trained on where its quality is told."""

_LEAST_TEST = 0.4
_LEAST = 35


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Rates and correlations from 0 (or -1) to 1: Spearman's and Kendall's (tau-b) correlations of
    predicted and measured latencies, the mean absolute error relative to the measured one, the
    shares of predictions within 5 and 10 % of it, the share of 90 % intervals that hold it (None
    for what tells no intervals)."""

    spearman: float
    kendall: float
    mape: float
    within_5: float
    within_10: float
    coverage_90: float | None
    n_train: int
    n_test: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def split(records: Sequence[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """(train, test), drawn by ``seed``: two fifths to test or more, so that at most 150 train.

    Raises `InputError` for fewer records than 35.
    """
    count = len(records)
    if count < _LEAST:
        raise InputError(f"{count} architectures were measured; a split needs {_LEAST} of them.")
    tested = max(round(count * _LEAST_TEST), count - MOST_TRAIN)
    order = np.random.default_rng(seed).permutation(count)
    test, train = sorted(order[:tested]), sorted(order[tested:])
    return [records[index] for index in train], [records[index] for index in test]


def quality(
    predicted: Sequence[Prediction] | NDArray[Any], records: Sequence[Record], *, n_train: int
) -> Quality:
    """Compare predictions, or bare relative latencies [n], with what was measured."""
    measured = np.array([one.typical for one in records])
    covered = None
    if isinstance(predicted, np.ndarray):
        middle = predicted
    else:
        middle = np.array([one.relative for one in predicted])
        held = [one.low <= t <= one.high for one, t in zip(predicted, measured, strict=True)]
        covered = float(np.mean(held))
    away = np.abs(middle / measured - 1)
    return Quality(
        spearman=spearman(middle, measured) / 100,
        kendall=kendall(middle, measured),
        mape=float(away.mean()),
        within_5=float((away <= 0.05).mean()),
        within_10=float((away <= 0.10).mean()),
        coverage_90=covered,
        n_train=n_train,
        n_test=len(records),
    )


def errors_of(predicted: Sequence[Prediction], records: Sequence[Record]) -> NDArray[Any]:
    """Predicted over measured, less 1: float64 [n]."""
    pairs = zip(predicted, records, strict=True)
    return np.array([one.relative / record.typical - 1 for one, record in pairs])


def repeatability(records: Sequence[Record]) -> dict[str, float] | None:
    """How well measuring itself repeats: the shares of repeated measurements within 5 and 10 % of
    the first, how many there are; None where nothing was measured twice. No predictor that learns
    from such measurements can be expected to do better."""
    away = [abs(time / one.relative - 1) for one in records for time in one.repeat_relative]
    if not away:
        return None
    return {
        "within_5": float(np.mean([error <= 0.05 for error in away])),
        "within_10": float(np.mean([error <= 0.10 for error in away])),
        "mape": float(np.mean(away)),
        "n": len(away),
    }


def kendall(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Kendall's tau-b: pairs in the same order less those in the other, ties left out of it; 0
    where either is constant."""
    first = np.sign(one[:, None] - one[None, :])
    second = np.sign(other[:, None] - other[None, :])
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale else 0.0
