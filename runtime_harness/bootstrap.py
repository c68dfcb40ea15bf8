"""Bootstrap intervals of medians and of ratios, over the rounds that were measured.

What disturbs a machine lasts longer than a call, and often than a round, so neither calls nor
rounds are independent evidence: rounds are drawn with those that follow them, with replacement
(the circular block bootstrap: Politis & Romano 1992; blocks of the cube root of their number;
percentile intervals: Davison & Hinkley, Bootstrap Methods and their Application, 1997, 5.3, 8.2).

All of n rounds lie on one side of the true median in 2 of 2^n cases. Fewer than six rounds
therefore cannot tell an interval of 95 %, however they are drawn; what is given for them goes from
the smallest to the largest that was seen, and has a ``fault``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "LEAST_ROUNDS", "Estimate", "median_of", "ratio_of"]

CONFIDENCE = 0.95
"""The share of repeated measurements whose interval is to hold the true value."""
LEAST_ROUNDS = 6
"""The fewest rounds that tell such an interval."""

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value, with the interval from ``low`` to ``high`` in which it lies at 95 %, if ``rounds``
    are enough."""

    value: float
    low: float
    high: float
    rounds: int = LEAST_ROUNDS

    @property
    def fault(self) -> str | None:
        """Why the interval cannot be relied on; None if it can."""
        if self.rounds >= LEAST_ROUNDS:
            return None
        return f"{self.rounds} rounds are too few for an interval: {LEAST_ROUNDS} are needed"

    @property
    def interval(self) -> tuple[float, float]:
        """``low`` and ``high``."""
        return self.low, self.high

    @property
    def uncertainty(self) -> float:
        """Half the interval's width, as a fraction of the value."""
        return (self.high - self.low) / 2 / self.value


def median_of(rounds: Sequence[Sequence[float]]) -> Estimate:
    """Return the median of all samples, and its interval. Each round has as many samples.

    The same samples give the same interval. Raises InputError if there are none, or rounds
    differ in length.
    """
    import numpy as np

    if not rounds or not rounds[0] or len({len(one) for one in rounds}) != 1:
        raise InputError("an interval needs rounds of as many samples each, at least one")
    samples = np.asarray(rounds, np.float64)
    if len(rounds) < LEAST_ROUNDS:
        low, high = float(samples.min()), float(samples.max())
        return Estimate(value=float(np.median(samples)), low=low, high=high, rounds=len(rounds))
    found = np.median(samples[_draws(len(rounds))].reshape(_RESAMPLES, -1), axis=1)
    return _estimate(float(np.median(samples)), found)


def ratio_of(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> Estimate:
    """Return how many times longer ``above`` takes than ``below``, and the interval of that.

    Both were measured in the same rounds, so each round gives one ratio of its two medians, in
    which a slower machine cancels out. The value is the middle of their logarithms by Hodges
    and Lehmann (the median of the means of all pairs): it bears as much as a quarter of spoiled
    rounds, and varies less than a median does. Raises InputError unless both have the same
    number of rounds.
    """
    import numpy as np

    if len(above) != len(below) or not above or not all(above) or not all(below):
        raise InputError("a ratio needs the same rounds on both sides, and samples in each")
    logs = np.log([np.median(one) for one in above]) - np.log([np.median(one) for one in below])
    value = float(np.exp(_middle(logs[None, :])[0]))
    if len(logs) < LEAST_ROUNDS:
        pairs = list(zip(above, below, strict=True))
        low = min(min(one) / max(other) for one, other in pairs)
        high = max(max(one) / min(other) for one, other in pairs)
        return Estimate(value=value, low=min(low, value), high=max(high, value), rounds=len(pairs))
    return _estimate(value, np.exp(_middle(logs[_draws(len(logs))])))


def _draws(count: int) -> NDArray[Any]:
    import numpy as np

    length = round(count ** (1 / 3))
    first = np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, -(-count // length)))
    blocks = (first[:, :, None] + np.arange(length)) % count
    return blocks.reshape(_RESAMPLES, -1)[:, :count]


def _middle(values: NDArray[Any]) -> NDArray[Any]:
    """The Hodges-Lehmann estimate of each row."""
    import numpy as np

    first, second = np.triu_indices(values.shape[1])
    middle: NDArray[Any] = np.median((values[:, first] + values[:, second]) / 2, axis=1)
    return middle


def _estimate(value: float, resampled: NDArray[Any]) -> Estimate:
    import numpy as np

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    # The middle of few rounds may lie outside of what their resamples give.
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))
