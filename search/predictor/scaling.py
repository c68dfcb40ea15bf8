"""How the costs of one setting become those of another: factors drawn to 1, and what is new there.

Each cost of the source's physical model is scaled: by a factor of the device, times one for
operations and so on, times one for the kind of dispatch, for its group, and for kind and term
together. A source without threads has no costs for them, and a factor of nothing is nothing; so
four costs are added: of every call, of every dispatch, of every dispatch that threads share (they
meet at its end), and of weights that the source still had in its cache (another thread may have
had them there at the last call, or the cache is smaller).

Logarithms of all but the factor of the device have Gaussian priors around 0, of the added costs
around a guess, so that a handful of measurements moves what they say something of. How far the
source's trees count is one more unknown, from 0 to 1. How loose the priors are is what makes the
measurements most probable (evidence by Laplace's method, MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .workload import TERMS, Workload, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .hybrid import Hybrid

__all__ = ["ADDED", "Scaled", "Scaling"]

ADDED = ("constant", "gap", "meeting", "refill")
"""Costs in units of the reference's time: of a call; of a dispatch; of one that threads share; of
1e6 bytes read again in every call, in the cache or not."""

# Standard deviations of the logarithms of factors, and of the added costs.
_PRIOR = {"device": 3.0, "term": 0.4, "kind": 0.3, "group": 0.2, "both": 0.2}
_PRIOR |= {"constant": 1.5, "gap": 1.0, "meeting": 1.0, "refill": 1.0}
_DEVICE_DOUBT = 0.5
_KEPT = (0.5, 0.5)  # of what the trees say: mean and standard deviation
_LITTLE = 5e-4  # of the reference: about a microsecond
_REFILL = 0.02  # for 1e6 bytes: some 25 GB/s
_LOOSENESS = (1.0, 2.0)
_NOISE = 0.04  # of a measurement and of what no factor explains, in logarithms
_STEPS = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaled:
    """``factors`` [groups, terms] of the source's costs, ``added`` [len(ADDED)] costs; ``other``
    is the factor of groups that nobody has seen; ``kept`` of what the trees say, from 0 to 1."""

    factors: NDArray[Any]
    added: NDArray[Any]
    other: float
    kept: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling:
    """``time`` [n, added + groups x terms] by the source's costs and the guesses, what is added
    first; ``learned`` [n] by its trees; ``design`` [added + groups x terms, effects] says which
    effects scale a cost, ``deviations`` [effects] how far they may be from 0."""

    groups: tuple[str, ...]
    time: NDArray[Any]
    learned: NDArray[Any]
    design: NDArray[Any]
    deviations: NDArray[Any]
    guesses: NDArray[Any]

    @classmethod
    def of(cls, model: Hybrid, workloads: Sequence[Workload]) -> Scaling:
        """Of some workloads in the new setting, by the ``model`` of the old one."""
        groups = tuple(sorted({*model.groups, *(g for one in workloads for g in one.terms)}))
        parts = model.physical.parts(workloads, groups).reshape(len(workloads), -1)
        guesses = np.array([max(model.physical.constant, _LITTLE), _LITTLE, _LITTLE, _REFILL])
        amounts = np.array([_amounts(one) for one in workloads])
        design, deviations = _effects(groups)
        return cls(
            groups=groups,
            time=np.concatenate([amounts * guesses, parts], axis=1),
            learned=model.logs(workloads) - np.log(model.physical.predict(workloads)),
            design=design,
            deviations=deviations,
            guesses=guesses,
        )

    def doubt(self) -> NDArray[Any]:
        """How latencies may vary together before anything was measured, in logarithms squared:
        float64 [n, n]. The factor of the device, which all have in common, is taken for roughly
        known: nearly any measurements tell it."""
        share = self.time @ self.design / self.time.sum(axis=1, keepdims=True)
        deviations = np.append(_DEVICE_DOUBT, self.deviations[1:])
        found: NDArray[Any] = (share * deviations**2) @ share.T
        return found

    def looseness(self, logs: NDArray[Any], weights: NDArray[Any]) -> float:
        """How many times as loose as usual the priors are best for these logarithms [n]."""
        every = np.ones(len(logs), bool)
        return max(_LOOSENESS, key=lambda one: self._solve(logs, weights, every, one)[1])

    def fit(self, logs: NDArray[Any], weights: NDArray[Any], looseness: float) -> Scaled:
        """The most probable costs for logarithms of relative latencies [n] and weights [n]."""
        effects, _ = self._solve(logs, weights, np.ones(len(logs), bool), looseness)
        factors = np.exp(self.design @ effects[:-1])
        count = len(ADDED)
        return Scaled(
            factors=factors[count:].reshape(len(self.groups), len(TERMS)),
            added=factors[:count] * self.guesses,
            other=float(np.exp(effects[0])),
            kept=float(effects[-1]),
        )

    def left_out(
        self, logs: NDArray[Any], weights: NDArray[Any], looseness: float
    ) -> NDArray[Any]:
        """The error, in logarithms, of each measurement by costs that had not seen it: [n]."""
        found = np.empty(len(logs))
        for index in range(len(logs)):
            rows = np.arange(len(logs)) != index
            effects, _ = self._solve(logs, weights, rows, looseness)
            total = float(self.time[index] @ np.exp(self.design @ effects[:-1]))
            found[index] = logs[index] - np.log(max(total, 1e-9))
            found[index] -= effects[-1] * self.learned[index]
        return found

    def _solve(
        self, logs: NDArray[Any], weights: NDArray[Any], rows: NDArray[Any], looseness: float
    ) -> tuple[NDArray[Any], float]:
        """(effects and at last what is kept, logarithm of the evidence), by Gauss-Newton with
        Huber's weights."""
        time, learned, target, given = (
            each[rows] for each in (self.time, self.learned, logs, weights)
        )
        deviations = np.append(self.deviations * looseness, _KEPT[1])
        middle = np.append(np.zeros(len(self.deviations)), _KEPT[0])
        middle[0] = np.median(target - np.log(np.maximum(time.sum(axis=1), 1e-9)))
        effects = middle.copy()
        for _ in range(_STEPS):
            scaled = time * np.exp(self.design @ effects[:-1])
            total = np.maximum(scaled.sum(axis=1), 1e-12)
            slope = np.column_stack([(scaled @ self.design) / total[:, None], learned])
            away = target - np.log(total) - effects[-1] * learned
            huber = np.minimum(1.0, 3 * _NOISE / np.maximum(np.abs(away), 1e-12))
            noise = _NOISE**2 / (given * huber)
            # Measurements are fewer than effects: solved among the measurements.
            wide = deviations**2 * slope
            covariance = wide @ slope.T + np.diag(noise)
            wanted = away + slope @ (effects - middle)
            solved = np.linalg.solve(covariance, wanted)
            step = middle + wide.T @ solved - effects
            effects = effects + np.clip(step, -0.5, 0.5)
            effects[-1] = min(max(effects[-1], 0.0), 1.0)
            if np.abs(step[:-1]).max() < 1e-5:
                break
        evidence = -0.5 * float(wanted @ solved + np.linalg.slogdet(covariance)[1])
        return effects, evidence


def _amounts(one: Workload) -> list[float]:
    """How many times a workload has each of `ADDED`."""
    launches, held = (sum(row[TERMS.index(name)] for row in one.terms.values()) for name in
                      ("launches", "held"))  # fmt: skip
    return [1.0, launches, float(sum(one.meetings.values())), held]


def _effects(groups: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(design [added + groups x terms, effects], standard deviations [effects])."""
    kinds = sorted({kind_of(group) for group in groups})
    columns: list[tuple[str, ...]] = [("device",), *((name,) for name in ADDED)]
    columns += [("term", term) for term in TERMS]
    columns += [("kind", kind) for kind in kinds]
    columns += [("group", group) for group in groups]
    columns += [("both", kind, term) for kind in kinds for term in TERMS]
    place = {name: index for index, name in enumerate(columns)}
    design = np.zeros((len(ADDED) + len(groups) * len(TERMS), len(columns)))
    design[:, 0] = 1
    for row, name in enumerate(ADDED):
        design[row, place[(name,)]] = 1
    for row, (group, term) in enumerate(product(groups, TERMS), len(ADDED)):
        kind = kind_of(group)
        # A launch is much the same whatever is launched.
        own = (
            () if term == "launches" else (("kind", kind), ("group", group), ("both", kind, term))
        )
        design[row, [place[name] for name in (("term", term), *own)]] = 1
    return design, np.array([_PRIOR[name[0]] for name in columns])
