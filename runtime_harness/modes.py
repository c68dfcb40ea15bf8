"""Samples that do not belong: outliers, and times that come in two kinds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Modes", "outliers", "two_modes"]

# In robust standard deviations; a normal distribution has two in 3.5 million out there.
_FAR = 5.0
_MAD_TO_SIGMA = 1.4826
# Times closer to the median than this are no outliers, however alike the others are.
_NEAR = 0.02

_FEWEST = 20
_LEAST_SHARE = 0.15
_LEAST_GAP = 0.03
# A uniform distribution has a sixth of its samples in the middle third between the halves' means.
_VALLEY_SHARE = 0.04


def outliers(samples: Sequence[float]) -> tuple[float, ...]:
    """Return the samples that lie far from the median, in their order.

    Far is more than 5 robust standard deviations (1.4826 times the median absolute deviation;
    Iglewicz & Hoaglin, 1993) and more than 2 % of the median.
    """
    if not samples:
        return ()
    median = statistics.median(samples)
    sigma = _MAD_TO_SIGMA * statistics.median(abs(sample - median) for sample in samples)
    far = max(_FAR * sigma, _NEAR * abs(median))
    return tuple(sample for sample in samples if abs(sample - median) > far)


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Two kinds of times: their medians, and the share of the samples that the second has."""

    fast: float
    slow: float
    share_of_slow: float


def two_modes(samples: Sequence[float]) -> Modes | None:
    """Return the two modes of bimodal samples, or None if they have but one.

    Samples are cut in two where the sum of both parts' squared deviations is least (Otsu, 1979);
    a part with less than 15 % of them is left out and the rest cut again, until 15 % are left
    out. They are bimodal if the medians of both parts lie 3 % apart, and the middle third
    between the parts' means is all but empty: a valley, as neither one broad mode nor a skewed
    one has. Fewer than 20 samples do not tell.
    """
    ordered = sorted(samples)
    least = _LEAST_SHARE * len(ordered)
    if len(ordered) < _FEWEST:
        return None
    left_out = 0
    cut = _cut(ordered)
    while min(cut, len(ordered) - cut) < least:
        left_out += min(cut, len(ordered) - cut)
        if left_out > least:
            return None
        ordered = ordered[cut:] if cut < len(ordered) - cut else ordered[:cut]
        cut = _cut(ordered)
    fast, slow = ordered[:cut], ordered[cut:]
    low, high = statistics.median(fast), statistics.median(slow)
    if low <= 0 or high / low - 1 < _LEAST_GAP:
        return None
    below, above = statistics.fmean(fast), statistics.fmean(slow)
    third = (above - below) / 3
    between = sum(below + third < sample < above - third for sample in ordered)
    if between > _VALLEY_SHARE * len(ordered):
        return None
    return Modes(fast=low, slow=high, share_of_slow=len(slow) / len(ordered))


def _cut(ordered: Sequence[float]) -> int:
    """Where to cut sorted samples: the variance between the two parts is largest."""
    total, count = sum(ordered), len(ordered)
    best, best_between, running = 1, -1.0, 0.0
    for index in range(1, count):
        running += ordered[index - 1]
        gap = running / index - (total - running) / (count - index)
        between = index * (count - index) * gap * gap
        if between > best_between:
            best, best_between = index, between
    return best
