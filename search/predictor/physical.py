"""A model's latency as a sum over its dispatches of what each kind of work costs.

A dispatch takes its launch, its operations, the numbers it reads, writes and activates, and the
weights that come from beyond the cache (`workload.TERMS`): costs that are not negative, for each
group of dispatches. Groups share: a cost is that of all dispatches, plus what the kind adds, the
precision, the engine, its block, so that what was seldom measured takes after its family. What a
call reads is still in the cache at the next one if all of it fits, and lost if it is far too much
(least recently used, in a circle); which size of cache explains the latencies best is fitted too.

Costs are fitted by non-negative least squares (Lawson and Hanson 1974) on the logarithm of the
latency, linearised again and again (Gauss-Newton), with Huber's weights against outliers. Where
single dispatches were timed, each is one more equation, of little weight: a profiled call is not
quite the same as a plain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.compression.fields import shown
from ...errors import InputError
from .fields import array, real, record
from .workload import TERMS, Workload, levels_of, working_set

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .timed import TimedDispatches

__all__ = ["PhysicalModel", "best_cache"]

_SHARED = "*"
_LEAST_MODELS = 5
_STEPS = 5
_HUBER = 1.5
_STRENGTH = 0.003
_TIMED = 0.01
_FOLDS = 3
_CACHES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_WIDTH = len(TERMS)


@dataclass(frozen=True, kw_only=True)
class PhysicalModel:
    """``costs``: by name, what each of `TERMS` costs in units of the reference's time.

    Names are ``*`` (all dispatches), a group, or a family of groups; what a group costs is the sum
    over it and its families. ``constant`` is what every call takes, ``gap`` what passes between
    dispatches, ``cache`` the size of the cache in 1e6 bytes.
    """

    constant: float
    gap: float
    cache: float
    costs: Mapping[str, tuple[float, ...]]

    def cost(self, group: str) -> NDArray[Any]:
        """What a group's terms cost: float64 [len(TERMS)]; one never seen takes its family's."""
        names = (_SHARED, *levels_of(group))
        found = np.array([self.costs.get(name, (0.0,) * _WIDTH) for name in names])
        found = found.sum(axis=0)
        found[0] += self.gap
        return np.asarray(found)

    def parts(self, workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
        """The time of each group and term: float64 [n, groups, terms]."""
        each = np.array([self.cost(group) for group in groups])
        return np.asarray(_amounts(workloads, groups, self.cache) * each)

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
        cache: float,
        timed: Sequence[TimedDispatches | None] = (),
    ) -> PhysicalModel:
        """Fit relative latencies [n] with ``weights`` [n], and dispatches where they were
        ``timed``, in the order of ``workloads``."""
        equations = _Equations.of(workloads, cache, timed)
        found = equations.solve(relative, weights, np.ones(len(relative), bool))
        costs = found[2:].reshape(-1, _WIDTH)
        return cls(
            constant=float(found[0]),
            gap=float(found[1]),
            cache=cache,
            costs={
                name: tuple(map(float, cost))
                for name, cost in zip(equations.names, costs, strict=True)
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {**vars(self), "costs": {name: list(cost) for name, cost in self.costs.items()}}

    @classmethod
    def from_json(cls, value: object) -> PhysicalModel:
        """Read one; raises `InputError`."""
        found = record(value, "physical", ("constant", "gap", "cache", "costs"))
        if not isinstance(found["costs"], Mapping):
            raise InputError(f"physical.costs must be an object, not {shown(found['costs'])}.")
        costs = {
            str(name): tuple(map(float, array(cost, f"physical.costs[{name}]", (_WIDTH,))))
            for name, cost in found["costs"].items()
        }
        if any(number < 0 for cost in costs.values() for number in cost):
            raise InputError("physical: no cost may be below 0.")
        least = {name: real(found[name], f"physical.{name}", above=-1e-12) for name in
                 ("constant", "gap", "cache")}  # fmt: skip
        return cls(costs=costs, **{name: max(one, 0.0) for name, one in least.items()})


def best_cache(
    workloads: Sequence[Workload],
    relative: NDArray[Any],
    weights: NDArray[Any],
    timed: Sequence[TimedDispatches | None] = (),
) -> float:
    """The size of cache (1e6 bytes; 0: none) with the smallest errors on rows left out."""
    fold = np.arange(len(relative)) % _FOLDS

    def error(cache: float) -> float:
        equations = _Equations.of(workloads, cache, timed)
        away = np.empty(len(relative))
        for number in range(_FOLDS):
            out = fold == number
            found = equations.solve(relative, weights, ~out, steps=2)
            predicted = np.maximum(equations.columns[out] @ found, 1e-9)
            away[out] = np.log(predicted) - np.log(relative[out])
        return float((weights * np.minimum(np.abs(away), 0.5)).sum())

    return min(_CACHES, key=error)


def _lost(workloads: Sequence[Workload], cache: float) -> NDArray[Any]:
    """The share of what a call reads that is not in the cache any more: [n], from 0 to 1."""
    held = np.array([working_set(one) for one in workloads])
    if cache <= 0:
        return np.ones(len(held))
    return np.clip(held / cache - 0.5, 0.0, 1.0)


def _amounts(workloads: Sequence[Workload], groups: Sequence[str], cache: float) -> NDArray[Any]:
    """The terms of each group in each workload: float64 [n, groups, terms]."""
    none = (0.0,) * _WIDTH
    rows = [[one.terms.get(group, none) for group in groups] for one in workloads]
    found = np.array(rows, np.float64).reshape(len(workloads), len(groups), _WIDTH)
    found[:, :, -1] *= _lost(workloads, cache)[:, None]
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class _Equations:
    """``columns`` [n, 2 + names x terms]: a constant, the dispatches, the terms of each name.
    ``gram`` and ``moment``, for each workload: normal equations of its timed dispatches."""

    names: tuple[str, ...]
    columns: NDArray[Any]
    gram: NDArray[Any] | None
    moment: NDArray[Any] | None

    @classmethod
    def of(
        cls,
        workloads: Sequence[Workload],
        cache: float,
        timed: Sequence[TimedDispatches | None],
    ) -> _Equations:
        groups = sorted({group for one in workloads for group in one.terms})
        each = _amounts(workloads, groups, cache)
        members = _members(groups, each[:, :, 0] > 0)
        launches = each[:, :, 0].sum(axis=1)
        blocks = [each[:, places].sum(axis=1) for places in members.values()]
        ones = np.ones((len(each), 1))
        columns = np.concatenate([ones, launches[:, None], *blocks], axis=1)
        gram = moment = None
        if any(one is not None for one in timed):
            lost = _lost(workloads, cache)
            gram = np.zeros((len(each), len(groups), _WIDTH, _WIDTH))
            moment = np.zeros((len(each), len(groups), _WIDTH))
            place = {group: index for index, group in enumerate(groups)}
            for row, one in enumerate(timed):
                scale = np.array([1.0] * (_WIDTH - 1) + [lost[row]])
                for group, (square, product) in ({} if one is None else one.sums).items():
                    gram[row, place[group]] = square * np.outer(scale, scale)
                    moment[row, place[group]] = product * scale
            gram, moment = _spread(gram, moment, list(members.values()))
        return cls(names=tuple(members), columns=columns, gram=gram, moment=moment)

    def solve(
        self,
        relative: NDArray[Any],
        weights: NDArray[Any],
        rows: NDArray[Any],
        steps: int = _STEPS,
    ) -> NDArray[Any]:
        """Costs [2 + names x terms] that explain the ``rows`` of the relative latencies [n]."""
        from scipy.optimize import nnls

        target, given, predicted = np.log(relative[rows]), weights[rows], relative[rows]
        # Norms have no operations, products of one row no second: many columns are nothing.
        there = np.flatnonzero((self.columns[rows] > 0).any(axis=0))
        columns = self.columns[np.ix_(rows, there)]
        scale = np.sqrt(((columns / predicted[:, None]) ** 2).mean(axis=0))
        size = len(scale)
        square, product = np.zeros((size, size)), np.zeros(size)
        if self.gram is not None and self.moment is not None:
            inner = there[2:] - 2
            square[2:, 2:] = _TIMED * self.gram[rows].sum(axis=0)[np.ix_(inner, inner)]
            product[2:] = _TIMED * self.moment[rows].sum(axis=0)[inner]
        square = square / np.outer(scale, scale) + _STRENGTH * given.sum() * np.eye(size)
        product = product / scale
        huber, found = np.ones(len(target)), np.zeros(size)
        for _ in range(steps):
            # log f(b) is about log f(b0) + J (b - b0), and J b0 = 1 for a sum of costs.
            wanted = 1.0 + np.clip(target - np.log(predicted), -0.7, 0.7)
            slope = columns / predicted[:, None] / scale
            by = (slope * (given * huber)[:, None]).T
            factor = _factor(by @ slope + square)
            right = np.linalg.solve(factor.T, by @ wanted + product)
            found = nnls(factor, right, maxiter=30 * size)[0] / scale
            predicted = np.maximum(columns @ found, 1e-9)
            away = np.abs(target - np.log(predicted))
            limit = _HUBER * max(1.4826 * float(np.median(away)), 1e-4)
            huber = np.minimum(1.0, limit / np.maximum(away, 1e-12))
        every = np.zeros(self.columns.shape[1])
        every[there] = found
        return every


def _factor(matrix: NDArray[Any]) -> NDArray[Any]:
    """An upper triangle R with R^T R = ``matrix``, which is positive but for rounding."""
    more = 0.0
    while True:
        try:
            found: NDArray[Any] = np.linalg.cholesky(matrix + more * np.eye(len(matrix))).T
            return found
        except np.linalg.LinAlgError:
            if not np.isfinite(matrix).all():
                raise
            more = max(10 * more, 1e-12 * float(np.trace(matrix)))


def _members(groups: Sequence[str], there: NDArray[Any]) -> dict[str, list[int]]:
    """The groups of each family, and of each group itself, that has costs of its own."""
    every: dict[str, list[int]] = {_SHARED: list(range(len(groups)))}
    for index, group in enumerate(groups):
        for level in levels_of(group):
            every.setdefault(level, []).append(index)
    found: dict[str, list[int]] = {}
    for name, places in every.items():
        models = there[:, places].any(axis=1).sum()
        # A family of one is its only member; what is seldom there takes after its family.
        if places not in found.values() and models >= min(_LEAST_MODELS, len(there)):
            found[name] = places
    return found


def _spread(
    gram: NDArray[Any], moment: NDArray[Any], members: Sequence[Sequence[int]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """From groups to all families: a dispatch's equation is in the columns of each it is of."""
    count = len(members)
    square = np.zeros((len(gram), count, _WIDTH, count, _WIDTH))
    product = np.zeros((len(gram), count, _WIDTH))
    for one, places in enumerate(members):
        product[:, one] = moment[:, places].sum(axis=1)
        for other in range(count):
            both = sorted(set(places) & set(members[other]))
            if both:
                square[:, one, :, other, :] = gram[:, both].sum(axis=1)
    size = count * _WIDTH
    return square.reshape(-1, size, size), product.reshape(-1, size)
