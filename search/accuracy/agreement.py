"""How well a cheap way of judging architectures orders them as a dear one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ..metrics import bootstrap, spearman
from ..predictor.quality import kendall

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Spearman's and Kendall's (tau-b) correlations of ``n`` architectures' ranks, from -1 to 1,
    with 95 % intervals from drawing the architectures again."""

    n: int
    spearman: float
    spearman_interval: tuple[float, float]
    kendall: float
    kendall_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def agreement(cheap: Sequence[float], dear: Sequence[float], *, seed: int = 0) -> Agreement:
    """Of two judgements of the same architectures, in the same order.

    Raises `InputError` where there are fewer than three, or not as many of both.
    """
    if len(cheap) != len(dear) or len(cheap) < 3:
        raise InputError(
            f"Ranks of {len(cheap)} and {len(dear)} architectures cannot be compared: give three "
            "or more, the same to both."
        )
    pairs = np.array([cheap, dear], np.float64).T

    def found(measure: Callable[..., float]) -> tuple[float, tuple[float, float]]:
        def of(rows: NDArray[Any]) -> float:
            return float(measure(rows[:, 0], rows[:, 1]))

        return of(pairs), bootstrap(of, pairs, seed=seed)

    rho, rho_interval = found(lambda one, other: spearman(one, other) / 100)
    tau, tau_interval = found(kendall)
    return Agreement(
        n=len(pairs),
        spearman=rho,
        spearman_interval=rho_interval,
        kendall=tau,
        kendall_interval=tau_interval,
    )
