"""Products in AMX tiles: 16 rows by 64 bytes of depth by 16 outputs in one instruction.

Two tiles of rows by two tiles of outputs share four loads among four products, which is what
the eight tile registers allow. Sums go through a small buffer in the first cache, from which the
sink takes them as vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..emitter import Emitter
from ..values import Buffer, Value
from .base import Block, Engine, Sink, words_of

__all__ = ["AmxBf16", "AmxInt8", "request_tiles"]

_ROWS = 16
_BYTES = 64

# Linux hands out the tiles' state on request (arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA).
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


def request_tiles(e: Emitter) -> None:
    """Ask the operating system for the tile registers, then configure all eight as full tiles.

    The module asks by itself, so it runs in any process; asking again costs 0.1 microseconds.
    """
    number = e.literal(_ARCH_PRCTL, "i64")
    request = e.literal(_REQUEST, "i64")
    feature = e.literal(_TILE_DATA, "i64")
    e.op(
        'llvm.inline_asm has_side_effects "syscall", '
        '"={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory}" '
        f"{number}, {request}, {feature} : (i64, i64, i64) -> i64",
        "i64",
    )
    settings = e.scratch((64,), "i8")
    # Palette 1; then bytes a row of each tile as 16-bit numbers, then the rows of each tile.
    palette = [1] + [0] * 15 + [_BYTES, 0] * 8 + [0] * 16 + [_ROWS] * 8 + [0] * 8
    e.store_vector(e.dense(palette, "i8"), settings, [0])
    e.effect("llvm.x86.ldtilecfg", [e.pointer(settings)])


@dataclass(frozen=True)
class _Amx(Engine):
    """Tiles 0-3 hold sums, 4-5 activations, 6-7 weights."""

    block_rows: int = 32
    tiles: int = 2
    blocks: ClassVar[Mapping[int, int]] = {2: 32, 1: 32}
    lanes: ClassVar[int] = 16
    groups_per_step: ClassVar[int] = 16
    row_multiple: ClassVar[int] = _ROWS
    multiply_op: ClassVar[str]

    def prepare(self, e: Emitter) -> Buffer:
        """The tiles, and the buffer that sums pass through."""
        request_tiles(e)
        sums = "i32" if self.precision == "int8" else "f32"
        return e.scratch((self.block_rows, self.panel), sums)

    def finish(self, e: Emitter) -> None:
        """Give the tiles back, so that the thread's state is small again."""
        e.effect("llvm.x86.tilerelease", [])

    def multiply(self, e: Emitter, state: Buffer, block: Block, sink: Sink) -> None:
        """See `Engine.multiply`; ``block.group_at`` must be None."""
        self._accumulate(e, block)
        self._store(e, block.rows, state, e.index(0))
        with e.loop(0, block.rows) as rows:
            found: list[Value] = [
                e.load_vector(state, [rows.index, 16 * j], 16) for j in range(self.tiles)
            ]
            sink(e.add(block.row, rows.index), found)

    def multiply_into(
        self, e: Emitter, state: Buffer, block: Block, sums: Buffer, column: Value
    ) -> None:
        """See `Engine.multiply_into`: the tiles go there without passing through registers."""
        del state
        self._accumulate(e, block)
        row = e.mul(block.row, e.index(sums.shape[1] * 4 // words_of(sums.element)))
        self._store(e, block.rows, sums, e.add(row, e.mul(column, e.index(4))))

    def _accumulate(self, e: Emitter, block: Block) -> None:
        """The sums of a block, in the tiles."""
        groups = block.groups
        if block.group_at is not None or isinstance(groups, Value):
            raise ValueError("these tiles take neighbouring depth groups only: see sparse_tiles")
        row_tiles = -(-block.rows // _ROWS)
        size = 1 if self.precision == "int8" else 2
        stride = block.activations.shape[1] * size
        step = self.panel * _BYTES
        tile = [e.literal(i, "i8") for i in range(8)]
        for i in range(row_tiles * self.tiles):
            e.effect("llvm.x86.tilezero", [tile[i]])
        first = e.mul(block.row, e.index(stride))
        panel = e.mul(block.panel, e.index(block.weights.shape[1] * size))
        with e.loop(0, groups // self.groups_per_step) as loop:
            depth = e.mul(loop.index, e.index(_BYTES))
            place = e.add(first, depth)
            for i in range(row_tiles):
                offset = e.add(place, e.index(i * _ROWS * stride))
                address = e.pointer(block.activations, offset)
                e.effect("llvm.x86.tileloadd64", [tile[4 + i], address, e.literal(stride, "i64")])
            weights = e.add(panel, e.mul(loop.index, e.index(step)))
            for j in range(self.tiles):
                address = e.pointer(block.weights, e.add(weights, e.index(j * _ROWS * _BYTES)))
                e.effect("llvm.x86.tileloadd64", [tile[6 + j], address, e.literal(_BYTES, "i64")])
                for i in range(row_tiles):
                    operands = [tile[i * self.tiles + j], tile[4 + i], tile[6 + j]]
                    e.effect(self.multiply_op, operands)

    def _store(self, e: Emitter, rows: int, sums: Buffer, first: Value) -> None:
        """The tiles to ``sums``, from byte ``first`` on."""
        row_bytes = sums.shape[1] * 4 // words_of(sums.element)
        for i in range(-(-rows // _ROWS)):
            for j in range(self.tiles):
                place = e.add(first, e.index(i * _ROWS * row_bytes + j * _BYTES))
                operands = [
                    e.literal(i * self.tiles + j, "i8"),
                    e.pointer(sums, place),
                    e.literal(row_bytes, "i64"),
                ]
                e.effect("llvm.x86.tilestored64", operands)


@dataclass(frozen=True)
class AmxInt8(_Amx):
    """Unsigned activations, signed weights, i32 sums."""

    name: ClassVar[str] = "amx_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("avx512f", "amx-tile", "amx-int8")
    group: ClassVar[int] = 4
    multiply_op: ClassVar[str] = "llvm.x86.tdpbusd"


@dataclass(frozen=True)
class AmxBf16(_Amx):
    """bf16 in, f32 sums."""

    name: ClassVar[str] = "amx_bf16"
    precision: ClassVar[str] = "bf16"
    features: ClassVar[tuple[str, ...]] = (
        "avx512f",
        "avx512dq",
        "avx512bf16",
        "amx-tile",
        "amx-bf16",
    )
    group: ClassVar[int] = 2
    multiply_op: ClassVar[str] = "llvm.x86.tdpbf16ps"
