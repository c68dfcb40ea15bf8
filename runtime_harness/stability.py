"""Statistics of timings, and whether they are worth anything."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["Verdict", "judge", "percentile"]

_FEWEST = 5
_SPREAD = 0.10
_DRIFT = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether timings are stable, and in one sentence why or why not."""

    stable: bool
    reason: str


def percentile(samples: Sequence[float], fraction: float) -> float:
    """Return the smallest sample that at least ``fraction`` of all do not exceed.

    It is one of the samples, so that few of them do not feign precision. Raises InputError for
    no samples or a fraction outside of 0 to 1.
    """
    if not samples or not 0 <= fraction <= 1:
        raise InputError("a percentile needs samples and a fraction from 0 to 1")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def judge(samples: Sequence[float]) -> Verdict:
    """Judge timings in the order they were taken, outliers included.

    They are stable if there are at least 5, nine in ten lie within 10 % above the median, and
    the medians of the earlier and the later half lie within 5 % of each other.
    """
    if len(samples) < _FEWEST:
        return Verdict(False, f"{len(samples)} samples are too few: {_FEWEST} are needed")
    median = statistics.median(samples)
    if median <= 0:
        return Verdict(False, "the median is not positive: the clock is too coarse")
    spread = percentile(samples, 0.9) / median - 1
    half = len(samples) // 2
    early, late = statistics.median(samples[:half]), statistics.median(samples[-half:])
    drift = (late - early) / median
    numbers = f"90th percentile {spread:+.1%} from the median, drift {drift:+.1%}"
    if spread > _SPREAD:
        return Verdict(False, f"the calls vary too much ({numbers})")
    if abs(drift) > _DRIFT:
        pace = "slower" if drift > 0 else "faster"
        return Verdict(False, f"the calls became {pace} during the measurement ({numbers})")
    return Verdict(True, numbers)
