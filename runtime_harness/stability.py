"""Whether timings are worth anything, told with the reason."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from .bootstrap import Estimate
from .disturbance import Disturbance
from .modes import outliers, two_modes

__all__ = ["Verdict", "drift_of", "judge", "percentile"]

_FEWEST = 5
_SPREAD = 0.10
_DRIFT = 0.05
_OUTLIERS = 0.10
_UNCERTAINTY = 0.02


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


def drift_of(samples: Sequence[float]) -> float:
    """Return how much slower the later half is than the earlier, as a fraction of the median."""
    half = len(samples) // 2
    early, late = statistics.median(samples[:half]), statistics.median(samples[-half:])
    return (late - early) / statistics.median(samples)


def judge(
    samples: Sequence[float],
    *,
    estimate: Estimate | None = None,
    disturbance: Disturbance | None = None,
    reference: Sequence[float] = (),
    notes: Sequence[str] = (),
) -> Verdict:
    """Judge timings in the order they were taken, outliers included.

    They are stable if there are at least 5, nine in ten lie within 10 % above the median, the
    medians of the earlier and the later half lie within 5 % of each other, no more than one in
    ten is an outlier, they come in one mode, the interval of the median (``estimate``) is
    within 2 % and of six rounds or more, and nothing else was using the cores (``disturbance``).
    Where that is not known, the reason says so. ``notes`` are further
    reasons against them; ``reference`` holds the reference's samples of the same rounds, by
    which a drift of the machine is told from one of the model.
    """
    if len(samples) < _FEWEST:
        few = f"{len(samples)} samples are too few: {_FEWEST} are needed"
        return Verdict(False, "; ".join([few, *notes]))
    median = statistics.median(samples)
    if median <= 0:
        return Verdict(False, "the median is not positive: the clock is too coarse")
    spread, drift = percentile(samples, 0.9) / median - 1, drift_of(samples)
    numbers = f"90th percentile {spread:+.1%} from the median, drift {drift:+.1%}"
    faults = [*(disturbance.faults() if disturbance else ()), *notes]
    varied = []
    if spread > _SPREAD:
        varied.append("the calls vary too much")
    if abs(drift) > _DRIFT:
        varied.append(_drifted(drift, reference))
    odd, modes = len(outliers(samples)), two_modes(samples)
    if modes is None and odd > _OUTLIERS * len(samples):
        varied.append(f"{odd} of {len(samples)} calls are outliers")
    if modes is not None:
        varied.append(
            f"the calls are of two kinds, {modes.share_of_slow:.0%} of them near "
            f"{modes.slow:.3g} ms and the others near {modes.fast:.3g} ms"
        )
    if estimate is not None and estimate.fault:
        faults.append(estimate.fault)
    elif estimate is not None and not varied and estimate.uncertainty > _UNCERTAINTY:
        varied.append(f"the median is only known to {estimate.uncertainty:.1%}")
    if varied:
        faults.append(f"{' and '.join(varied)} ({numbers})")
    if faults:
        return Verdict(False, "; ".join(faults))
    unknown = "; what else used the cores is not known"
    return Verdict(True, numbers + unknown * (disturbance is not None and not disturbance.known))


def _drifted(drift: float, reference: Sequence[float]) -> str:
    pace = "slower" if drift > 0 else "faster"
    if len(reference) >= _FEWEST:
        other = drift_of(reference)
        if other * drift > 0 and abs(other) > _DRIFT / 2:
            return f"the machine became {pace} during the measurement (the reference {other:+.1%})"
    return f"the calls became {pace} during the measurement"
