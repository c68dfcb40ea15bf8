"""Metrics of classes and of numbers, times 100, intervals by resampling, and which way is better.

What is undefined (a correlation with a constant, an F1 without any positive) is 0, so that a
model that answers one thing alone has a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "accuracy",
    "bootstrap",
    "f1",
    "lower_is_better",
    "macro_f1",
    "matthews",
    "paired_bootstrap",
    "pearson",
    "spearman",
]

_RESAMPLES = 1000
_LOWER = ("perplexity", "bits_per_character")


def lower_is_better(metric: str) -> bool:
    """Whether less of the metric of this name is better: perplexity and bits, of a masked model
    (``pseudo_``) too."""
    return metric.removeprefix("pseudo_") in _LOWER


def accuracy(predicted: NDArray[Any], label: NDArray[Any]) -> float:
    """The share of equal classes, in percent."""
    return 100 * float((predicted == label).mean())


def f1(predicted: NDArray[Any], label: NDArray[Any], positive: int = 1) -> float:
    """2 tp / (2 tp + fp + fn) of the class ``positive``, in percent."""
    hits = float(((predicted == positive) & (label == positive)).sum())
    total = float((predicted == positive).sum() + (label == positive).sum())
    return 100 * 2 * hits / total if total else 0.0


def macro_f1(predicted: NDArray[Any], label: NDArray[Any], classes: int) -> float:
    """The mean of the F1 of every class that was predicted or is there, in percent."""
    import numpy as np

    present = [k for k in range(classes) if (predicted == k).any() or (label == k).any()]
    return float(np.mean([f1(predicted, label, k) for k in present])) if present else 0.0


def matthews(predicted: NDArray[Any], label: NDArray[Any]) -> float:
    """Matthews' correlation of classes times 100, for more than two by Gorodkin (2004)."""
    import numpy as np

    _, codes = np.unique(np.concatenate([predicted, label]), return_inverse=True)
    classes = int(codes.max()) + 1
    pairs = codes[: len(predicted)] * classes + codes[len(predicted) :]
    table = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.float64)
    total, guessed, real = table.sum(), table.sum(axis=1), table.sum(axis=0)
    covariance = np.trace(table) * total - guessed @ real
    variance = (total**2 - guessed @ guessed) * (total**2 - real @ real)
    return 100 * float(covariance / np.sqrt(variance)) if variance else 0.0


def pearson(predicted: NDArray[Any], score: NDArray[Any]) -> float:
    """Pearson's correlation times 100."""
    import numpy as np

    one = np.asarray(predicted, np.float64) - np.mean(predicted, dtype=np.float64)
    other = np.asarray(score, np.float64) - np.mean(score, dtype=np.float64)
    scale = np.linalg.norm(one) * np.linalg.norm(other)
    # A constant leaves rounding errors behind its mean, which must not correlate.
    constant = np.ptp(predicted) == 0 or np.ptp(score) == 0 or scale == 0
    return 0.0 if constant else 100 * float(np.clip(one @ other / scale, -1, 1))


def spearman(predicted: NDArray[Any], score: NDArray[Any]) -> float:
    """Spearman's correlation of ranks times 100; equal values share the mean of their ranks."""
    return pearson(_ranks(predicted), _ranks(score))


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[Any] = (last - (counts - 1) / 2)[inverse]
    return ranks


def bootstrap(
    metric: Callable[[NDArray[Any]], float], scores: NDArray[Any], *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of ``metric``, from the 2.5th to the 97.5th percentile.

    Rows of ``scores`` are drawn with replacement a thousand times (Efron 1979). What it tells is
    how far another sample of rows might be off, not what another training would give.
    """
    import numpy as np

    found = [metric(scores[some]) for some in _resampled(len(scores), seed)]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def paired_bootstrap(
    metric: Callable[[NDArray[Any]], float],
    scores: NDArray[Any],
    others: NDArray[Any],
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of ``metric`` of ``scores`` less that of ``others``, of the same rows.

    Both are of the same resamples, so what a sample of rows does to both alike cancels out: it
    tells finer differences than whether two intervals of `bootstrap` overlap.
    """
    import numpy as np

    drawn = _resampled(len(scores), seed)
    found = [metric(scores[some]) - metric(others[some]) for some in drawn]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _resampled(rows: int, seed: int) -> Iterator[NDArray[Any]]:
    import numpy as np

    draw = np.random.default_rng(seed)
    for _ in range(_RESAMPLES):
        yield draw.integers(0, rows, rows)
