"""Boosted trees that LightGBM wrote as text, checked and walked through with NumPy alone.

LightGBM's own reader trusts its input, so a file that somebody else made never reaches it; and
predicting needs no LightGBM. Only what canao trains is read: numeric splits, values that are
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Forest"]

_MOST_TREES, _MOST_LEAVES = 4096, 256
_DECISIONS = (0, 2)  # numeric, no value missing; 2: one that were would go left


@dataclass(frozen=True, eq=False)
class Forest:
    """The sum of all trees. Node ``n`` of a tree goes to ``left`` where ``x[feature] <=
    threshold``; a node below 0 is the leaf ``~n``. Arrays are [trees, nodes or leaves]."""

    text: str
    features: int
    feature: NDArray[Any]
    threshold: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]
    values: NDArray[Any]
    depth: int

    @classmethod
    def read(cls, text: object, features: int) -> Forest:
        """Read LightGBM's text of trees over ``features`` columns; `InputError` if it is not."""
        if not isinstance(text, str):
            raise InputError("A forest must be LightGBM's text.")
        body = text.split("\nend of trees")
        trees = [_fields(part) for part in body[0].split("\nTree=")[1:]]
        if len(body) != 2 or not 0 < len(trees) <= _MOST_TREES:
            raise InputError(f"A forest must be LightGBM's text of 1 to {_MOST_TREES} trees.")
        widest = max(_count(tree) for tree in trees)
        shape = (len(trees), max(widest - 1, 1))
        feature, left, right = (np.zeros(shape, np.int64) for _ in range(3))
        threshold = np.zeros(shape)
        values = np.zeros((len(trees), widest))
        left[:], right[:] = -1, -1
        depth = 0
        for row, tree in enumerate(trees):
            leaves = _count(tree)
            nodes = leaves - 1
            values[row, :leaves] = _numbers(tree, "leaf_value", leaves)
            if not nodes:
                continue
            feature[row, :nodes] = _whole(tree, "split_feature", nodes, 0, features)
            threshold[row, :nodes] = _numbers(tree, "threshold", nodes)
            left[row, :nodes] = _whole(tree, "left_child", nodes, -leaves, nodes)
            right[row, :nodes] = _whole(tree, "right_child", nodes, -leaves, nodes)
            decisions = _whole(tree, "decision_type", nodes, 0, 256)
            if not np.isin(decisions, _DECISIONS).all():
                raise InputError("A tree splits by what canao does not read.")
            depth = max(depth, _depth(left[row, :nodes], right[row, :nodes]))
        return cls(text, features, feature, threshold, left, right, values, depth)

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The sum of all trees for each row of [n, features]: float64 [n]."""
        trees = np.arange(len(self.values))
        node = np.zeros((len(rows), len(trees)), np.int64)
        if not self.depth:
            return np.full(len(rows), self.values[:, 0].sum())
        # A tree of one leaf goes from its only node to leaf 0: both its children are ~0.
        for _ in range(self.depth):
            inner = np.maximum(node, 0)
            value = np.take_along_axis(rows, self.feature[trees, inner], axis=1)
            down = np.where(
                value <= self.threshold[trees, inner],
                self.left[trees, inner],
                self.right[trees, inner],
            )
            node = np.where(node < 0, node, down)
        total: NDArray[Any] = self.values[trees, ~node].sum(axis=1)
        return total


def _fields(part: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in part.splitlines())
    return {name: value for name, sign, value in pairs if sign}


def _count(tree: Mapping[str, str]) -> int:
    text = tree.get("num_leaves", "")
    linear = tree.get("is_linear", "0") != "0" or tree.get("num_cat", "0") != "0"
    if not text.isdecimal() or not 0 < len(text) < 5 or linear:
        raise InputError("A tree has no number of leaves, or is of a kind canao does not read.")
    if not 1 <= int(text) <= _MOST_LEAVES:
        raise InputError(f"A tree has {int(text)} leaves; {_MOST_LEAVES} are the most.")
    return int(text)


def _numbers(tree: Mapping[str, str], name: str, count: int) -> NDArray[Any]:
    parts = tree.get(name, "").split()
    try:
        found = np.array([float(part) for part in parts])
    except ValueError:
        found = np.empty(0)
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"A tree's {name} must be {count} finite numbers.")
    return found


def _whole(tree: Mapping[str, str], name: str, count: int, low: int, high: int) -> NDArray[Any]:
    """Whole numbers in [low, high)."""
    found = _numbers(tree, name, count)
    if (found != np.floor(found)).any() or (found < low).any() or (found >= high).any():
        raise InputError(f"A tree's {name} must be whole numbers from {low} to {high - 1}.")
    return found.astype(np.int64)


def _depth(left: NDArray[Any], right: NDArray[Any]) -> int:
    """How deep a tree is. Raises `InputError` unless every node and leaf has one parent."""
    children = np.concatenate([left, right])
    whole = np.arange(-len(left) - 1, len(left))
    if sorted(children) != [node for node in whole if node != 0]:
        raise InputError("A tree's nodes do not form a tree.")
    depth, level, seen = 0, [0], 0
    while level:
        depth += 1
        seen += len(level)
        level = [int(n) for node in level for n in (left[node], right[node]) if n > 0]
    if seen != len(left):  # a ring that the root does not reach
        raise InputError("A tree's nodes do not form a tree.")
    return depth
