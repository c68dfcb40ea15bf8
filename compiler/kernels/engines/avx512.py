"""Products in AVX-512 registers.

f32 takes one value a step, bf16 two (VDPBF16PS), int8 four (VPDPBUSD, unsigned by signed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..emitter import Emitter
from ..values import Value, vector
from .broadcasting import Broadcasting

__all__ = ["Avx512Bf16", "Avx512F32", "Avx512Int8"]


@dataclass(frozen=True)
class _Avx512(Broadcasting):
    """24 of the 32 registers hold sums."""

    block_rows: int = 8
    tiles: int = 3
    blocks: ClassVar[Mapping[int, int]] = {3: 8, 2: 12, 1: 16}
    lanes: ClassVar[int] = 16
    fewest_rows: ClassVar[int] = 8
    fetches_ahead: ClassVar[bool] = True
    # Of more, LLVM loads all words before it multiplies, and spills them.
    narrow_rows: ClassVar[int] = 10


@dataclass(frozen=True)
class Avx512F32(_Avx512):
    """f32 by fused multiply-add."""

    name: ClassVar[str] = "avx512_f32"
    precision: ClassVar[str] = "f32"
    features: ClassVar[tuple[str, ...]] = ("avx512f",)
    group: ClassVar[int] = 1
    # More words of neighbouring rows than ways of the first cache may share its lines.
    narrow_rows: ClassVar[int] = 8

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        return e.fma(one, weights, total)


@dataclass(frozen=True)
class Avx512Bf16(_Avx512):
    """Pairs of bf16 into f32."""

    name: ClassVar[str] = "avx512_bf16"
    precision: ClassVar[str] = "bf16"
    features: ClassVar[tuple[str, ...]] = ("avx512f", "avx512dq", "avx512bf16")
    group: ClassVar[int] = 2

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        pairs = vector(32, "bf16")
        # Of its factors the last may be a word in memory, which the instruction broadcasts.
        operands = [total, e.bitcast(weights, pairs), e.bitcast(one, pairs)]
        return e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", operands, total.type)


@dataclass(frozen=True)
class Avx512Int8(_Avx512):
    """Fours of unsigned activations and signed weights into i32."""

    name: ClassVar[str] = "avx512_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("avx512f", "avx512vnni")
    group: ClassVar[int] = 4

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        fours = vector(64, "i8")
        operands = [total, e.bitcast(one, fours), weights]
        return e.intrinsic("llvm.x86.avx512.vpdpbusd.512", operands, total.type)
