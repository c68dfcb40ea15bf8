"""What every part of an attention kernel knows while it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .attention_pack import Part
from .attention_plan import Plan
from .attention_shape import AttentionForm, AttentionShape, Sources, View
from .attention_softmax import native_bf16
from .emitter import Emitter
from .engines.base import Block, Engine, Sink
from .values import Buffer, Value

__all__ = ["Context", "Item"]


@dataclass(frozen=True)
class Item:
    """A block of queries of one head, from query ``query`` of the sequence on."""

    head: Value
    query: Value


@dataclass(frozen=True)
class Context:
    """``state`` is what the engine set up; ``group`` the number of the work-group."""

    e: Emitter
    plan: Plan
    shape: AttentionShape
    sources: Sources
    form: AttentionForm
    buffers: dict[str, Buffer]
    state: Any
    group: Value

    @property
    def lanes(self) -> int:
        """f32 values in a vector."""
        return self.plan.scores.lanes

    @property
    def native_bf16(self) -> bool:
        """As for `round_bf16`."""
        return self.form.native_bf16 or native_bf16(self.plan.scores)

    def part(self, view: View, row: Value, head: Value, width: int) -> Part:
        """The columns of ``head``, ``width`` each, from ``row`` on."""
        e = self.e
        column = e.add(e.index(view.column), e.mul(head, e.index(width)))
        return Part(self.buffers[f"matrix{view.matrix}"], row, column, width, self.native_bf16)

    def room(self, keys: int) -> int:
        """``keys`` and the padding that both products need."""
        scores, values = self.plan.scores, self.plan.values
        found = keys
        while found % scores.panel or values.padded_depth(found) != found:
            found += 1
        return found

    def multiply(
        self, engine: Engine, rows: Buffer, weights: Buffer, panel: Value, groups: int, sink: Sink
    ) -> None:
        """All rows of an item by one panel."""
        block = Block(rows, weights, self.e.index(0), self.plan.rows, panel, groups)
        engine.multiply(self.e, self.state, block, sink)
