"""Intervals that hold the truth as often as they say, whatever the model (conformal prediction).

Cross-conformal with errors scaled by how large they are expected to be (Papadopoulos et al. 2008,
Vovk 2015): each measurement is predicted by models that did not see it; the interval is as wide as
the k-th smallest of the scaled errors, k = ceil((n + 1) * level).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVEL", "reach"]

LEVEL = 0.9
"""The share of intervals that hold what is measured afterwards."""


def reach(errors: NDArray[Any], difficulty: NDArray[Any], level: float = LEVEL) -> float:
    """The quantile of ``errors / difficulty`` (both [n], in logarithms) that intervals reach to.

    With so few that no error is rare enough, the largest, made longer by as many as are missing.
    """
    scaled = np.sort(np.abs(errors) / difficulty)
    rank = math.ceil((len(scaled) + 1) * level)
    if rank > len(scaled):
        return float(scaled[-1]) * rank / len(scaled) * 1.5
    return float(scaled[rank - 1])
