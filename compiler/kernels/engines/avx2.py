"""Products in AVX2's sixteen registers of eight lanes.

Without VNNI there is no instruction that multiplies bytes exactly: pairs of VPMADDUBSW
saturate. So int8 goes by VPMADDWD on 16-bit integers: the even and the odd bytes of a word of
activations are split by a mask and a shift, those of the weights by shifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..emitter import Emitter
from ..values import Value, vector
from .broadcasting import Broadcasting

__all__ = ["Avx2F32", "Avx2Int8", "AvxVnniInt8"]

_WORDS = vector(16, "i16")


@dataclass(frozen=True)
class _Avx2(Broadcasting):
    """12 of the 16 registers hold sums."""

    block_rows: int = 6
    tiles: int = 2
    blocks: ClassVar[Mapping[int, int]] = {2: 6, 1: 12}
    lanes: ClassVar[int] = 8


@dataclass(frozen=True)
class Avx2F32(_Avx2):
    """f32 by fused multiply-add."""

    name: ClassVar[str] = "avx2_f32"
    precision: ClassVar[str] = "f32"
    features: ClassVar[tuple[str, ...]] = ("avx2", "fma")
    group: ClassVar[int] = 1

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        return e.fma(one, weights, total)


@dataclass(frozen=True)
class AvxVnniInt8(_Avx2):
    """Fours of unsigned activations and signed weights into i32 (VPDPBUSD)."""

    name: ClassVar[str] = "avxvnni_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("avx2", "avxvnni")
    group: ClassVar[int] = 4

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        operands = [total, e.bitcast(one, weights.type), weights]
        return e.intrinsic("llvm.x86.avx512.vpdpbusd.256", operands, total.type)


@dataclass(frozen=True)
class Avx2Int8(_Avx2):
    """Fours of unsigned activations and signed weights, as pairs of 16-bit integers."""

    block_rows: int = 4
    blocks: ClassVar[Mapping[int, int]] = {2: 4, 1: 6}
    name: ClassVar[str] = "avx2_int8"
    precision: ClassVar[str] = "int8"
    features: ClassVar[tuple[str, ...]] = ("avx2",)
    group: ClassVar[int] = 4

    def _multiplied(self, e: Emitter, total: Value, one: Value, weights: Value) -> Value:
        # The same splitting again for each row and tile: the compiler does it once.
        one, weights = e.bitcast(one, _WORDS), e.bitcast(weights, _WORDS)
        even = self._shifted(e, "shrsi", self._shifted(e, "shli", weights))
        odd = self._shifted(e, "shrsi", weights)
        ones = e.bit_and(one, e.number(255, _WORDS)), e.shift_right(one, 8)
        for operands in zip(ones, (even, odd), strict=True):
            products = e.intrinsic("llvm.x86.avx2.pmadd.wd", operands, total.type)
            total = e.add(total, products)
        return total

    def _shifted(self, e: Emitter, op: str, value: Value) -> Value:
        return e.op(f"arith.{op} {value}, {e.number(8, _WORDS)} : {_WORDS}", _WORDS)
