"""Blocks of zeros in a model's weights, counted where the weights are: lowering does not see them.

For each weight that is sparse enough and each way in which a kernel could cut it into blocks,
the number of blocks that survive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels.sparse_choice import Cut, cuts
from .kernels.sparse_format import SparseLayout
from .parameters import ParameterTable

if TYPE_CHECKING:
    import torch

__all__ = [
    "LEAST_ZEROS",
    "BlockCount",
    "BlockCounts",
    "blocks_stored",
    "by_parameter",
    "count_blocks",
]

BlockCount = tuple[str, int, int, int, int]
"""A parameter, group_in, panel, multiple, and the blocks that survive, filled up to multiples."""

BlockCounts = Mapping[str, Mapping[Cut, int]]

LEAST_ZEROS = 0.1
"""The share of zeros from which on a matrix is worth counting."""


def count_blocks(tensors: Mapping[str, torch.Tensor]) -> tuple[BlockCount, ...]:
    """For every matrix of which a tenth or more are zeros; others have nothing to leave out."""
    found: list[BlockCount] = []
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or 0 in tensor.shape:
            continue
        alive = (tensor != 0).numpy()
        if 1 - alive.mean() < LEAST_ZEROS:
            continue
        found += [(name, *cut, _count(alive, cut)) for cut in sorted(cuts())]
    return tuple(found)


def by_parameter(counts: Iterable[BlockCount]) -> BlockCounts:
    """The counts of each parameter by cut."""
    found: dict[str, dict[Cut, int]] = {}
    for name, group_in, panel, multiple, count in counts:
        found.setdefault(name, {})[group_in, panel, multiple] = count
    return found


def blocks_stored(
    table: ParameterTable, counts: BlockCounts, name: str, layout: SparseLayout
) -> int | None:
    """`SparseLayout.stored` of a parameter or of joined ones; None where it is not known."""
    derivation = table.derivations.get(name)
    parts: tuple[str, ...] = (name,)
    if derivation is not None and derivation.kind == "concatenate":
        if dict(derivation.attributes).get("axis") != 0:
            return None
        parts = derivation.sources
    if any(table[part].shape[0] % layout.panel for part in parts[:-1]):
        return None
    cut = layout.group_in, layout.panel, layout.multiple
    known = [counts.get(part, {}).get(cut) for part in parts]
    sizes = [count for count in known if count is not None]
    return max(layout.multiple, sum(sizes)) if len(sizes) == len(known) else None


def _count(alive: np.ndarray[Any, Any], cut: Cut) -> int:
    group_in, panel, multiple = cut
    outputs, depth = alive.shape
    layout = SparseLayout(outputs, depth, group_in, panel, 1, 1, multiple)
    counts = layout.survivors(alive).sum(axis=1)
    return int((-(-counts // multiple) * multiple).sum())
