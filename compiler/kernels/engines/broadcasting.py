"""Products where one row's value, in every lane, meets a vector of weights.

One 32-bit word of a row a step: one f32, two bf16 or four int8, loaded into all lanes by one
instruction. A block of ``block_rows`` x ``tiles`` sums lives in registers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..emitter import Emitter
from ..values import Value, vector
from .base import Block
from .in_registers import InRegisters

__all__ = ["Broadcasting"]


@dataclass(frozen=True)
class Broadcasting(InRegisters):
    """Activations broadcast from memory."""

    def _step(
        self,
        e: Emitter,
        block: Block,
        rows: Sequence[Value],
        group: Value,
        groups: int,
        sums: Sequence[Value],
    ) -> list[Value]:
        del groups
        width = self.group * self.lanes
        weights = [self._weights(e, block, group, j, width) for j in range(self.tiles)]
        depth = self._depth(e, block, group)
        following = []
        for i, row in enumerate(rows):
            one = self._broadcast(e, block, row, depth)
            following += [
                self._multiplied(e, sums[i * self.tiles + j], one, weights[j])
                for j in range(self.tiles)
            ]
        return following

    def _broadcast(self, e: Emitter, block: Block, row: Value, depth: Value) -> Value:
        """A group of a row in every lane: f32, or an i32 of two bf16 or four int8."""
        if self.precision == "f32":
            return e.broadcast(e.load(block.activations, [row, depth]), self.lanes)
        narrow = e.load_vector(block.activations, [row, depth], self.group)
        word = e.bitcast(narrow, vector(1, "i32"))
        wide = vector(self.lanes, "i32")
        return e.op(f"vector.broadcast {word} : {word.type} to {wide}", wide)

    @abstractmethod
    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value: ...
