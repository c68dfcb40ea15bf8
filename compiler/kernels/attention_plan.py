"""How an attention is cut so that one head's packed k and v stay in scratch on the stack.

Queries are taken ``rows`` at a time, an *item* being so many queries of one head. Where the keys
of a head do not fit at once they come in chunks of ``chunk``, and the items in batches of
``items`` whose unfinished sums wait in scratch while the chunks come by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .attention_shape import AttentionShape
from .engines.base import Engine

__all__ = ["Plan", "plan_for"]

_STACK = 120 * 1024
_MOST_ROWS = 16
_TILES = 2
_ENOUGH_GROUPS = 8


@dataclass(frozen=True)
class Plan:
    """The two engines and the cut. ``items`` is 0 where all keys are there at once."""

    scores: Engine
    values: Engine
    rows: int
    chunk: int
    items: int
    heads_per_group: int

    @property
    def label(self) -> str:
        """All of it, as part of a kernel's name."""
        values = f"{self.values.block_rows}x{self.values.panel}"
        cut = f"{self.rows}r{self.chunk}k{self.items}i{self.heads_per_group}h"
        return f"{self.scores.label}_{values}_{cut}"


def plan_for(engine: Engine, shape: AttentionShape) -> Plan | None:
    """The plan, or None where nothing fits."""
    wide = max(shape.keys, shape.value_dim) > engine.lanes or engine.row_multiple > 1
    tiles = _TILES if wide else 1
    rows = _rows(engine, tiles, shape)
    scores = replace(engine, tiles=tiles, block_rows=engine.padded_rows(rows))
    groups = shape.batch * shape.kv_heads
    share = shape.sharing if groups >= _ENOUGH_GROUPS else 1
    unit = math.lcm(scores.panel, scores.padded_depth(1))
    room = math.ceil(shape.keys / unit) * unit
    whole = Plan(scores, scores, rows, room, 0, share)
    if _fixed_bytes(whole, shape) <= _STACK:
        return whole
    found: list[tuple[float, Plan]] = []
    all_items = share * math.ceil(shape.queries / rows)
    for chunks in range(2, room // unit + 1):
        chunk = math.ceil(room / unit / chunks) * unit
        plan = Plan(scores, scores, rows, chunk, 1, share)
        free = _STACK - _fixed_bytes(plan, shape)
        items = min(free // _item_bytes(plan, shape), all_items)
        if items > 0:
            plan = replace(plan, items=items)
            found.append((_overhead(plan, shape, all_items), plan))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _rows(engine: Engine, tiles: int, shape: AttentionShape) -> int:
    """Queries of an item: all items have as many, and repeat few."""
    most = min(engine.blocks[tiles], _MOST_ROWS)
    return math.ceil(shape.queries / math.ceil(shape.queries / most))


def _fixed_bytes(plan: Plan, shape: AttentionShape) -> int:
    """Packed k and v, a block of q, its scores, the softmax's vector and three numbers a row, an
    engine's own buffer."""
    size = 4 if plan.scores.element == "f32" else 2
    rows = plan.scores.padded_rows(plan.rows)
    keys = math.prod(plan.scores.packed_shape(plan.chunk, shape.head_dim)) * size
    values = math.prod(plan.values.packed_shape(shape.value_dim, plan.chunk)) * size
    queries = rows * plan.scores.row_stride(shape.head_dim) * size
    own = rows * (plan.scores.panel + plan.scores.lanes + 3) * 4
    return keys + values + queries + rows * plan.chunk * 4 + own


def _item_bytes(plan: Plan, shape: AttentionShape) -> int:
    """Sums, maximum and total of each row of an item, in whole vectors of rows."""
    lanes = plan.scores.lanes
    rows = math.ceil(plan.rows / lanes) * lanes
    return rows * (math.ceil(shape.value_dim / lanes) * lanes + 2) * 4


def _overhead(plan: Plan, shape: AttentionShape, items: int) -> float:
    """About how many cycles go into packing again and into sums that wait."""
    packing = math.ceil(items / plan.items) * shape.keys * (shape.head_dim + shape.value_dim) * 0.4
    waiting = items * plan.rows * math.ceil(shape.keys / plan.chunk) * (80 + shape.value_dim / 4)
    return packing + waiting
