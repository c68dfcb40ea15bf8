"""How many work-groups a dispatch is cut into, which threads share: by the kernels' own rules."""

from __future__ import annotations

import math

from ...compiler.kernels import sparse_tiles
from ...compiler.kernels.product import panels_at_once
from ...compiler.kernels.rows import groups_for
from .dispatch import Dispatch

__all__ = ["busiest_share", "groups_of"]

_BY_ROWS = ("embedding", "norm", "quantize", "convert", "words")
_BY_PANELS = ("product", "sparse", "weights")


def groups_of(one: Dispatch) -> int:
    """Products share their panels of outputs, attention its heads, all others their rows.

    IREE's own dispatches are small, and count as one; so does an attention's every head, though
    queries that share keys may go together.
    """
    if one.kind in _BY_PANELS:
        panel = int(str(one.detail["block"]).partition("x")[2])
        tiles = one.detail["engine"] == sparse_tiles.SparseTiles.name
        panels = math.ceil(one.outputs / panel)
        share = math.ceil(panels / sparse_tiles.MOST_GROUPS) if tiles else panels_at_once(panels)
        return math.ceil(panels / share)
    if one.kind == "rows":
        return math.ceil(one.rows / int(one.detail["block_rows"]))
    if one.kind == "attention":
        return int(one.detail["heads"])
    if one.kind in _BY_ROWS:
        return groups_for(one.rows)
    return 1


def busiest_share(groups: int, threads: int) -> float:
    """The share of all work that the busiest of the threads does, if they take turns."""
    return math.ceil(groups / threads) / groups
