"""Gradient-boosted trees for what the physical model leaves unsaid (Friedman 2001, LightGBM).

Few measurements are at hand, so the trees are small, slow and many, each sees part of the rows
and columns, and several seeds are averaged. Their columns that measure how much is done may only
add time: sums of work and traffic never make a model faster.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .forest import Forest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST_ROWS", "available", "fit_forests", "mean_of"]

LEAST_ROWS = 40
"""With fewer measurements than this, trees learn noise: the physical model stands alone."""

_ROUNDS = 160
_OPTIONS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 6,
    "max_depth": 4,
    "min_data_in_leaf": 8,
    "min_data_in_bin": 1,
    "lambda_l2": 4.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "monotone_constraints_method": "advanced",
    "use_missing": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def available() -> bool:
    """Whether LightGBM is installed."""
    return importlib.util.find_spec("lightgbm") is not None


def fit_forests(
    rows: NDArray[Any],
    targets: NDArray[Any],
    weights: NDArray[Any],
    *,
    rising: Sequence[int],
    seeds: Sequence[int],
) -> tuple[Forest, ...]:
    """A forest for each seed: [n, columns] to [n]; the columns ``rising`` only add."""
    import lightgbm

    constraints = np.zeros(rows.shape[1], int)
    constraints[list(rising)] = 1
    found = []
    for seed in seeds:
        data = lightgbm.Dataset(
            rows, label=targets, weight=weights, params={"verbosity": -1, "min_data_in_bin": 1}
        )
        options = {**_OPTIONS, "seed": seed, "monotone_constraints": constraints.tolist()}
        text = lightgbm.train(options, data, num_boost_round=_ROUNDS).model_to_string()
        found.append(Forest.read(text, rows.shape[1]))
    return tuple(found)


def mean_of(forests: Sequence[Forest], rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(mean, standard deviation) of the forests for each row; zeros where there are none."""
    if not forests:
        return np.zeros(len(rows)), np.zeros(len(rows))
    each = np.array([forest.predict(rows) for forest in forests])
    return each.mean(axis=0), each.std(axis=0)
