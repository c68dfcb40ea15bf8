"""Products in NEON registers by lane: four depth groups of a row in one register, a lane a step.

One load of a row serves four depth groups, because FMLA and SDOT take one lane of it for all
outputs. A wide block of few rows needs the fewest instructions beside those: weights come two
registers a load, activations one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..emitter import Emitter
from ..values import Value, vector
from .base import Block
from .counted import Counted
from .in_registers import InRegisters

__all__ = ["NeonF32", "NeonInt8"]

_LANES = 4


@dataclass(frozen=True)
class _ByLane(InRegisters, Counted):
    """Activations by lane; 24 of the 32 registers hold sums."""

    block_rows: int = 4
    tiles: int = 6
    blocks: ClassVar[Mapping[int, int]] = {6: 4, 4: 6, 3: 7, 2: 8, 1: 12}
    lanes: ClassVar[int] = _LANES
    at_once: ClassVar[int] = _LANES

    def _step(
        self,
        e: Emitter,
        block: Block,
        rows: Sequence[Value],
        group: Value,
        groups: int,
        sums: Sequence[Value],
    ) -> list[Value]:
        depth = self._depth(e, block, group)
        ones = [self._load(e, block, row, depth, groups) for row in rows]
        following = list(sums)
        for lane in range(groups):
            splats = [e.shuffle(one, one, [lane] * _LANES) for one in ones]
            for j in range(self.tiles):
                part = lane * self.tiles + j
                weights = self._weights(e, block, group, part, self.group * _LANES)
                for i, splat in enumerate(splats):
                    at = i * self.tiles + j
                    following[at] = self._multiplied(e, following[at], splat, weights)
        return following

    def round_instructions(self, groups: int) -> float:
        """See `Counted`. One group alone is spread by its load, whose address is added up."""
        products = self.block_rows * self.tiles * groups
        around = self.block_rows + 5 if groups > 1 else 2 * self.block_rows + 4
        return products + self.tiles * groups / 2 + around

    def _load(self, e: Emitter, block: Block, row: Value, depth: Value, groups: int) -> Value:
        """Depth groups of a row, a lane each."""
        found = e.load_vector(block.activations, [row, depth], self.group * groups)
        return found if self.precision == "f32" else e.bitcast(found, vector(groups, "i32"))

    @abstractmethod
    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value: ...


@dataclass(frozen=True)
class NeonF32(_ByLane):
    """f32 by fused multiply-add."""

    name: ClassVar[str] = "neon_f32"
    precision: ClassVar[str] = "f32"
    # NEON itself is in every 64-bit ARM core and in no target's list; this tells ARM from x86.
    features: ClassVar[tuple[str, ...]] = ("dotprod",)
    group: ClassVar[int] = 1

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        return e.fma(one, weights, total)


@dataclass(frozen=True)
class NeonInt8(_ByLane):
    """Fours of signed activations and weights into i32 (SDOT)."""

    name: ClassVar[str] = "neon_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("dotprod",)
    group: ClassVar[int] = 4
    signed: ClassVar[bool] = True

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        operands = [total, weights, e.bitcast(one, weights.type)]
        return e.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", operands, total.type)
