"""A model's latency as a sum over its dispatches of what each kind of work costs.

A dispatch takes a launch, its multiplications, and the bytes it moves: three costs, none below
zero, for each group of dispatches. Groups share: a cost is that of all dispatches, plus what the
kind adds, the precision, the engine, so that what was seldom measured takes after its family.
Costs are fitted by non-negative least squares (Lawson and Hanson 1974) on the logarithm of the
latency, linearised again and again (Gauss-Newton), with Huber's weights against outliers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.compression.fields import shown
from ...errors import InputError
from .fields import array, record
from .workload import TERMS, Workload, levels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PhysicalModel", "best_strength"]

_SHARED = "*"
_LEAST_MODELS = 5
_STEPS = 8
_HUBER = 1.5
_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class PhysicalModel:
    """``costs``: by name, (a launch, 1e9 operations, 1e6 bytes) in units of the reference's time.

    Names are ``*`` (all dispatches), a group, or a family of groups; what a group costs is the sum
    over it and its families. ``constant`` is what every model takes.
    """

    constant: float
    costs: Mapping[str, tuple[float, ...]]

    def cost(self, group: str) -> NDArray[Any]:
        """What a group's terms cost: float64 [len(TERMS)]; one never seen takes its family's."""
        names = (_SHARED, *levels_of(group))
        found = np.array([self.costs.get(name, (0.0,) * len(TERMS)) for name in names])
        return np.asarray(found.sum(axis=0))

    def parts(self, workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
        """The time of each group and term: float64 [n, groups, terms]."""
        each = np.array([self.cost(group) for group in groups])
        return np.asarray(amounts(workloads, groups) * each)

    def predict(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """Relative latencies: float64 [n], all above 0."""
        groups = sorted({group for one in workloads for group in one.terms})
        total = self.parts(workloads, groups).sum(axis=(1, 2)) + self.constant
        found: NDArray[Any] = np.maximum(total, 1e-9)
        return found

    @classmethod
    def fit(
        cls,
        workloads: Sequence[Workload],
        relative: NDArray[Any],
        weights: NDArray[Any],
        *,
        strength: float,
    ) -> PhysicalModel:
        """Fit relative latencies [n] with ``weights`` [n] and a penalty on costs."""
        names, columns = _columns(workloads)
        found = _solve(columns, relative, weights, strength)
        width = len(TERMS)
        costs = {
            name: tuple(map(float, found[1 + width * index : 1 + width * (index + 1)]))
            for index, name in enumerate(names)
        }
        return cls(constant=float(found[0]), costs=costs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {
            "constant": self.constant,
            "costs": {name: list(cost) for name, cost in self.costs.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> PhysicalModel:
        """Read one; raises `InputError`."""
        found = record(value, "physical", ("constant", "costs"))
        if not isinstance(found["costs"], Mapping):
            raise InputError(f"physical.costs must be an object, not {shown(found['costs'])}.")
        costs = {
            str(name): tuple(map(float, array(cost, f"physical.costs[{name}]", (len(TERMS),))))
            for name, cost in found["costs"].items()
        }
        constant = float(array(found["constant"], "physical.constant", ()))
        if constant < 0 or any(number < 0 for cost in costs.values() for number in cost):
            raise InputError("physical: no cost may be below 0.")
        return cls(constant=constant, costs=costs)


def best_strength(
    workloads: Sequence[Workload], relative: NDArray[Any], weights: NDArray[Any]
) -> float:
    """The penalty whose errors on rows left out are smallest, in `_FOLDS` folds."""
    _, columns = _columns(workloads)
    fold = np.arange(len(relative)) % _FOLDS

    def error(strength: float) -> float:
        away = np.empty(len(relative))
        for number in range(_FOLDS):
            out = fold == number
            found = _solve(columns[~out], relative[~out], weights[~out], strength)
            away[out] = np.log(np.maximum(columns[out] @ found, 1e-9)) - np.log(relative[out])
        return float((weights * np.minimum(np.abs(away), 0.5)).sum())

    return min(_STRENGTHS, key=error)


def amounts(workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
    """The terms of each group in each workload: float64 [n, groups, terms]."""
    none = (0.0,) * len(TERMS)
    found = [[one.terms.get(group, none) for group in groups] for one in workloads]
    return np.array(found, np.float64).reshape(len(workloads), len(groups), len(TERMS))


def _columns(workloads: Sequence[Workload]) -> tuple[list[str], NDArray[Any]]:
    """(names, [n, 1 + names x terms]): a constant, then the terms of each name."""
    groups = sorted({group for one in workloads for group in one.terms})
    each = amounts(workloads, groups)
    members: dict[str, list[int]] = {_SHARED: list(range(len(groups)))}
    for index, group in enumerate(groups):
        for level in levels_of(group):
            members.setdefault(level, []).append(index)
    names, blocks, seen = [], [], set()
    for name, places in members.items():
        models = (each[:, places, 0] > 0).any(axis=1).sum()
        # A family of one is its only member; what is seldom there takes after its family.
        if tuple(places) not in seen and models >= min(_LEAST_MODELS, len(each)):
            seen.add(tuple(places))
            names.append(name)
            blocks.append(each[:, places].sum(axis=1))
    return names, np.concatenate([np.ones((len(each), 1)), *blocks], axis=1)


def _solve(
    columns: NDArray[Any], relative: NDArray[Any], weights: NDArray[Any], strength: float
) -> NDArray[Any]:
    from scipy.optimize import nnls

    share = columns / relative[:, None]
    scale = np.sqrt((share**2).mean(axis=0))
    scale[scale == 0] = 1.0
    penalty = np.sqrt(strength * weights.sum()) * np.eye(columns.shape[1])
    target = np.log(relative)
    predicted, huber = relative, np.ones(len(relative))
    found = np.zeros(columns.shape[1])
    for _ in range(_STEPS):
        # log f(b) is about log f(b0) + J (b - b0), and J b0 = 1 for a sum of costs.
        root = np.sqrt(weights * huber)
        wanted = 1.0 + np.clip(target - np.log(predicted), -0.7, 0.7)
        slope = columns / predicted[:, None] / scale
        rows = np.concatenate([root[:, None] * slope, penalty])
        right = np.concatenate([root * wanted, np.zeros(len(penalty))])
        found = nnls(rows, right, maxiter=30 * columns.shape[1])[0] / scale
        predicted = np.maximum(columns @ found, 1e-9)
        away = np.abs(target - np.log(predicted))
        limit = _HUBER * max(1.4826 * float(np.median(away)), 1e-4)
        huber = np.minimum(1.0, limit / np.maximum(away, 1e-12))
    return found
