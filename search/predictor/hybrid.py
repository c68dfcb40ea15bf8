"""The two models as one: the physical sum, times what boosted trees learned of its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.compression.fields import items
from ...errors import InputError
from .boosting import LEAST_ROWS, available, fit_forests, mean_of
from .fields import names, real, record
from .forest import Forest
from .physical import PhysicalModel, best_cache
from .timed import TimedDispatches
from .workload import SUMS, TERMS, Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Hybrid", "fit_hybrid"]

_FOLDS = 10
_SEEDS_FINAL, _SEEDS_FOLD = 8, 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Hybrid:
    """``share`` of what the ``forests`` say (0 to 1) is believed; ``groups`` are the dispatches
    whose shares of the time the trees look at."""

    physical: PhysicalModel
    forests: tuple[Forest, ...]
    groups: tuple[str, ...]
    share: float

    def logs(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """Logarithms of relative latencies: float64 [n]."""
        found: NDArray[Any] = np.log(self.physical.predict(workloads))
        if self.forests:
            rows = _rows(self.physical, workloads, self.groups)
            found = found + self.share * mean_of(self.forests, rows)[0]
        return found

    def spread(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """How far the forests are apart, in logarithms: float64 [n]."""
        if not self.forests:
            return np.zeros(len(workloads))
        rows = _rows(self.physical, workloads, self.groups)
        return self.share * mean_of(self.forests, rows)[1]

    def parts(self, workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
        """The time of each group and term: float64 [n, groups, terms]."""
        return self.physical.parts(workloads, groups)

    def costs(self) -> dict[str, NDArray[Any]]:
        """What each group of dispatches costs, by term, in units of the reference's time."""
        return {group: self.physical.cost(group) for group in self.groups}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with LightGBM's text of each forest: the inverse of `from_json`."""
        return {
            "physical": self.physical.to_json(),
            "forests": [forest.text for forest in self.forests],
            "groups": list(self.groups),
            "share": self.share,
            "terms": list(TERMS),
            "columns": _row_names(self.groups),
        }

    @classmethod
    def from_json(cls, value: object) -> Hybrid:
        """Read one; raises `InputError`."""
        keys = ("physical", "forests", "groups", "share", "terms", "columns")
        found = record(value, "model", keys)
        groups = names(found["groups"], "model.groups")
        columns = _row_names(groups)
        # By their names: a forest does not know what its columns are, nor the sum its terms.
        if found["columns"] != columns or found["terms"] != list(TERMS):
            raise InputError(
                "The predictor was made for other features of programs than this canao derives: "
                "train it again."
            )
        share = real(found["share"], "model.share")
        if not 0 <= share <= 1:
            raise InputError(f"model.share must be from 0 to 1, not {share}.")
        return cls(
            physical=PhysicalModel.from_json(found["physical"]),
            forests=items(
                found["forests"], "model.forests", lambda text, _: Forest.read(text, len(columns))
            ),
            groups=groups,
            share=share,
        )


def fit_hybrid(
    workloads: Sequence[Workload],
    relative: NDArray[Any],
    weights: NDArray[Any],
    timed: Sequence[TimedDispatches | None] = (),
    *,
    seed: int,
) -> tuple[Hybrid, NDArray[Any]]:
    """(model, errors): errors [n] are logarithms of measured over predicted, each by a model that
    had not seen it (10 folds).

    Trees learn from errors that the physical model makes on what it had not seen, and count as
    far as they explain such errors of models that had not seen them either.
    """
    order = np.random.default_rng(seed).permutation(len(relative))
    fold = np.empty(len(relative), int)
    fold[order] = np.arange(len(relative)) % min(_FOLDS, len(relative))
    groups = tuple(sorted({group for one in workloads for group in one.terms}))
    trees = available() and len(relative) >= LEAST_ROWS

    def part(every: Sequence[Any], rows: NDArray[Any]) -> list[Any]:
        return [one for one, chosen in zip(every, rows, strict=True) if chosen] if every else []

    cache = best_cache(workloads, relative, weights, timed)
    physical = PhysicalModel.fit(workloads, relative, weights, cache=cache, timed=timed)
    residual, learned = np.empty(len(relative)), np.zeros(len(relative))
    for number in range(fold.max() + 1):
        out = fold == number
        model = PhysicalModel.fit(
            part(workloads, ~out),
            relative[~out],
            weights[~out],
            cache=cache,
            timed=part(timed, ~out),
        )
        residual[out] = np.log(relative[out]) - np.log(model.predict(part(workloads, out)))
    if not trees:
        return Hybrid(physical=physical, forests=(), groups=groups, share=0.0), residual
    columns = _rows(physical, workloads, groups)
    limit = 4 * 1.4826 * float(np.median(np.abs(residual))) + 1e-6
    targets = np.clip(residual, -limit, limit)
    rising = range(len(SUMS) + 1)
    for number in range(fold.max() + 1):
        out = fold == number
        forests = fit_forests(
            columns[~out],
            targets[~out],
            weights[~out],
            rising=rising,
            seeds=range(seed, seed + _SEEDS_FOLD),
        )
        learned[out] = mean_of(forests, columns[out])[0]
    power = float((weights * learned**2).sum())
    share = float((weights * learned * targets).sum()) / power if power > 0 else 0.0
    share = min(max(share, 0.0), 1.0)
    forests = fit_forests(
        columns, targets, weights, rising=rising, seeds=range(seed, seed + _SEEDS_FINAL)
    )
    found = Hybrid(physical=physical, forests=forests, groups=groups, share=share)
    return found, residual - share * learned


def _row_names(groups: Sequence[str]) -> list[str]:
    from ..program.features import feature_names

    return ["predicted", *SUMS, *(f"share of {group}" for group in groups), *feature_names()]


def _rows(
    physical: PhysicalModel, workloads: Sequence[Workload], groups: Sequence[str]
) -> NDArray[Any]:
    """What trees look at: float64 [n, columns], in the order of `_row_names`."""
    time = physical.parts(workloads, groups).sum(axis=2)
    total = physical.predict(workloads)[:, None]
    sums = np.array([[one.position[name] for name in SUMS] for one in workloads])
    features = np.array([one.features for one in workloads])
    return np.concatenate([total, sums, time / total, features], axis=1)
