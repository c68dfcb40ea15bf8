"""Medians over interleaved rounds, and the interval of a ratio of two of them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "ratio_of", "round_median", "significant"]

_RESAMPLES = 4000
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster; ``low`` and ``high`` bound it with 95 % confidence."""

    value: float
    low: float
    high: float


def round_median(rounds: Sequence[Sequence[float]]) -> float:
    """The median over rounds of the median within each round."""
    return statistics.median(statistics.median(samples) for samples in rounds)


def ratio_of(
    theirs: Sequence[Sequence[float]], ours: Sequence[Sequence[float]], *, seed: int = 0
) -> Ratio:
    """Return ``theirs / ours``: above 1 means that ours took less time.

    The two were measured in the same rounds, and what disturbs a machine lasts longer than
    a call, so whole rounds are resampled, the same ones for both sides (paired bootstrap).
    """
    if len(theirs) != len(ours) or not ours:
        raise ValueError("a ratio needs the same rounds on both sides")
    pairs = [
        (statistics.median(a), statistics.median(b)) for a, b in zip(theirs, ours, strict=True)
    ]
    rng = random.Random(seed)
    resampled = sorted(_ratio(rng.choices(pairs, k=len(pairs))) for _ in range(_RESAMPLES))
    tail = round((1 - _CONFIDENCE) / 2 * _RESAMPLES)
    return Ratio(value=_ratio(pairs), low=resampled[tail], high=resampled[-1 - tail])


def significant(value: float, digits: int = 4) -> float:
    """Round to so many significant digits, as the kept samples are."""
    return float(f"{value:.{digits}g}")


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
