"""Products in AVX-512 registers: one row's value in every lane, times a vector of weights.

A block of ``block_rows`` x ``tiles`` sums lives in registers through the whole depth. f32 takes
one value a step, bf16 two (VDPBF16PS), int8 four (VPDPBUSD, unsigned by signed).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..emitter import Emitter, Value, vector
from .base import Block, Engine, Sink

__all__ = ["Avx512Bf16", "Avx512F32", "Avx512Int8"]

_WIDE = vector(16, "f32")
_WIDE_INT = vector(16, "i32")


@dataclass(frozen=True)
class _Broadcasting(Engine):
    """Sums in registers; activations broadcast from memory."""

    blocks: ClassVar[Mapping[int, int]] = {3: 8, 2: 12, 1: 16}
    lanes: ClassVar[int] = 16

    def multiply(self, e: Emitter, state: Any, block: Block, sink: Sink) -> None:
        """See `Engine.multiply`."""
        del state
        sums = vector(self.lanes, "i32" if self.precision == "int8" else "f32")
        zero = e.number(0, sums)
        rows = [e.add(block.row, e.index(i)) for i in range(block.rows)]
        width = self.group * self.lanes
        carried = [zero] * (block.rows * self.tiles)
        with e.loop(0, block.groups, 1, carried=carried) as loop:
            start = e.mul(loop.index, e.index(width * self.tiles))
            weights = [
                e.load_vector(
                    block.weights, [block.panel, e.add(start, e.index(width * j))], width
                )
                for j in range(self.tiles)
            ]
            place = block.group_at(loop.index) if block.group_at else loop.index
            depth = e.mul(place, e.index(self.group))
            following = []
            for i, row in enumerate(rows):
                one = self._broadcast(e, block, row, depth)
                following += [
                    self._step(e, loop.values[i * self.tiles + j], one, weights[j])
                    for j in range(self.tiles)
                ]
            loop.carry(following)
        for i, row in enumerate(rows):
            sink(row, loop.results[i * self.tiles : (i + 1) * self.tiles])

    def _broadcast(self, e: Emitter, block: Block, row: Value, depth: Value) -> Value:
        narrow = e.load_vector(block.activations, [row, depth], self.group)
        word = e.bitcast(narrow, vector(1, "i32"))
        return e.op(f"vector.broadcast {word} : {word.type} to {_WIDE_INT}", _WIDE_INT)

    @abstractmethod
    def _step(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value: ...


@dataclass(frozen=True)
class Avx512F32(_Broadcasting):
    """f32 by fused multiply-add."""

    block_rows: int = 8
    tiles: int = 3
    name: ClassVar[str] = "avx512_f32"
    precision: ClassVar[str] = "f32"
    features: ClassVar[tuple[str, ...]] = ("avx512f",)
    group: ClassVar[int] = 1

    def _broadcast(self, e: Emitter, block: Block, row: Value, depth: Value) -> Value:
        return e.broadcast(e.load(block.activations, [row, depth]), self.lanes)

    def _step(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        return e.fma(one, weights, total)


@dataclass(frozen=True)
class Avx512Bf16(_Broadcasting):
    """Pairs of bf16 into f32."""

    block_rows: int = 8
    tiles: int = 3
    name: ClassVar[str] = "avx512_bf16"
    precision: ClassVar[str] = "bf16"
    features: ClassVar[tuple[str, ...]] = ("avx512f", "avx512bf16")
    group: ClassVar[int] = 2

    def _step(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        pairs = vector(32, "bf16")
        operands = [total, e.bitcast(one, pairs), e.bitcast(weights, pairs)]
        return e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", operands, _WIDE)


@dataclass(frozen=True)
class Avx512Int8(_Broadcasting):
    """Fours of unsigned activations and signed weights into i32."""

    block_rows: int = 8
    tiles: int = 3
    name: ClassVar[str] = "avx512_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("avx512f", "avx512vnni")
    group: ClassVar[int] = 4

    def _step(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        fours = vector(64, "i8")
        operands = [total, e.bitcast(one, fours), weights]
        return e.intrinsic("llvm.x86.avx512.vpdpbusd.512", operands, _WIDE_INT)
