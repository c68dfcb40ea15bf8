"""Products by NEON's matrix instructions: two rows times two outputs in one register of sums.

SMMLA takes eight bytes of depth of each, BFMMLA four bf16. Two loads of 16 bytes of
neighbouring rows are interleaved by halves into the operands of two depth groups; the weights
are packed as they are needed, hence the wide block of few rows. At the end the 2 x 2 blocks
become vectors of outputs again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..emitter import Emitter
from ..values import Value, vector
from .base import Block
from .counted import Counted
from .in_registers import InRegisters

__all__ = ["NeonMatrixBf16", "NeonMatrixInt8"]


@dataclass(frozen=True)
class _Matrix(InRegisters, Counted):
    """Sums of 2 x 2: for each pair of rows, two for each tile of four outputs."""

    block_rows: int = 4
    tiles: int = 6
    blocks: ClassVar[Mapping[int, int]] = {6: 4, 4: 4, 3: 6, 2: 8, 1: 12}
    lanes: ClassVar[int] = 4
    at_once: ClassVar[int] = 2
    row_multiple: ClassVar[int] = 2
    multiply_op: ClassVar[str]

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
        pairs = [
            self._operands(e, block, rows[i : i + 2], depth, groups)
            for i in range(0, len(rows), 2)
        ]
        following = list(sums)
        columns = 2 * self.tiles
        width = 2 * self.group
        for n in range(groups):
            for j in range(columns):
                weights = self._weights(e, block, group, n * columns + j, width)
                for i, pair in enumerate(pairs):
                    at = i * columns + j
                    operands = [following[at], pair[n], self._typed(e, weights)]
                    following[at] = e.intrinsic(self.multiply_op, operands, sums[at].type)
        return following

    def round_instructions(self, groups: int) -> float:
        """See `Counted`. Halves of rows are interleaved, or one is loaded behind another."""
        products = self.block_rows * self.tiles * groups
        around = 2 * self.block_rows + 5 if groups > 1 else 1.5 * self.block_rows + 3
        return products + self.tiles * groups + around

    def _operands(
        self, e: Emitter, block: Block, rows: Sequence[Value], depth: Value, groups: int
    ) -> list[Value]:
        """For each of the depth groups, that of two rows in one register."""
        halves = vector(groups, "i64")
        first, second = (
            e.bitcast(e.load_vector(block.activations, [row, depth], self.group * groups), halves)
            for row in rows
        )
        joined = [e.shuffle(first, second, [n, groups + n]) for n in range(groups)]
        return [self._typed(e, one) for one in joined]

    def _typed(self, e: Emitter, value: Value) -> Value:
        element = "i8" if self.precision == "int8" else "bf16"
        return e.bitcast(value, vector(2 * self.group, element))

    def _by_row(self, e: Emitter, sums: Sequence[Value], rows: int) -> list[Sequence[Value]]:
        columns = 2 * self.tiles
        found: list[Sequence[Value]] = []
        for row in range(rows):
            pair = sums[row // 2 * columns : (row // 2 + 1) * columns]
            upper = 2 * (row % 2)
            lanes = [upper, upper + 1, 4 + upper, 5 + upper]
            found.append([e.shuffle(pair[j], pair[j + 1], lanes) for j in range(0, columns, 2)])
        return found


@dataclass(frozen=True)
class NeonMatrixInt8(_Matrix):
    """Signed activations and weights, i32 sums."""

    name: ClassVar[str] = "neon_matrix_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("dotprod", "i8mm")
    group: ClassVar[int] = 8
    signed: ClassVar[bool] = True
    multiply_op: ClassVar[str] = "llvm.aarch64.neon.smmla.v4i32.v16i8"


@dataclass(frozen=True)
class NeonMatrixBf16(_Matrix):
    """bf16 in, f32 sums."""

    name: ClassVar[str] = "neon_matrix_bf16"
    precision: ClassVar[str] = "bf16"
    features: ClassVar[tuple[str, ...]] = ("dotprod", "bf16")
    group: ClassVar[int] = 4
    multiply_op: ClassVar[str] = "llvm.aarch64.neon.bfmmla"
