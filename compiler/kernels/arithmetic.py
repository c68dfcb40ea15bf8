"""Operations on values: constants, arithmetic, conversions, intrinsics, as lines of MLIR text.

A `Value` knows its type, so that ``e.add(a, b)`` is an integer, float or vector addition as its
operands say.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .values import Value, element_of, lanes_of, vector

__all__ = ["Arithmetic"]

_FLOATS = ("f32", "bf16", "f16", "f64")


class Arithmetic:
    """Appends operations on values to the body of one function."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._constants: dict[str, str] = {}
        self._count = 0

    # -- text ----------------------------------------------------------------------------------

    def text(self) -> str:
        """Constants first, then every operation in order."""
        constants = [f"{name} = {text}" for text, name in self._constants.items()]
        return "\n".join(constants + self._lines)

    def fresh(self) -> str:
        """A new SSA name."""
        self._count += 1
        return f"%v{self._count}"

    def raw(self, line: str) -> None:
        """One line as it is."""
        self._lines.append(line)

    def op(self, text: str, type_: str) -> Value:
        """``%new = text``, a value of ``type_``."""
        result = Value(self.fresh(), type_)
        self.raw(f"{result} = {text}")
        return result

    # -- constants -----------------------------------------------------------------------------

    def _constant(self, text: str, type_: str) -> Value:
        name = self._constants.setdefault(text, f"%c{len(self._constants)}")
        return Value(name, type_)

    def index(self, number: int | Value) -> Value:
        """An index constant; an index value as it is."""
        if isinstance(number, Value):
            return number
        return self._constant(f"arith.constant {number} : index", "index")

    def number(self, number: float, type_: str) -> Value:
        """A scalar or splat constant of ``type_``; floats keep every bit of their f32."""
        element = element_of(type_)
        spelled = _float_text(number, element) if element in _FLOATS else str(int(number))
        if type_.startswith("vector<"):
            return self._constant(f"arith.constant dense<{spelled}> : {type_}", type_)
        return self._constant(f"arith.constant {spelled} : {type_}", type_)

    def dense(self, numbers: Sequence[int], element: str) -> Value:
        """A vector constant of integers."""
        type_ = vector(len(numbers), element)
        spelled = ", ".join(str(int(n)) for n in numbers)
        return self._constant(f"arith.constant dense<[{spelled}]> : {type_}", type_)

    def floats(self, numbers: Sequence[float]) -> Value:
        """A vector constant of f32."""
        type_ = vector(len(numbers), "f32")
        spelled = ", ".join(_float_text(n, "f32") for n in numbers)
        return self._constant(f"arith.constant dense<[{spelled}]> : {type_}", type_)

    # -- arithmetic ----------------------------------------------------------------------------

    def _binary(self, float_op: str, integer_op: str, a: Value, b: Value) -> Value:
        kind = float_op if element_of(a.type) in _FLOATS else integer_op
        return self.op(f"{kind} {a}, {b} : {a.type}", a.type)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._binary("arith.addf", "arith.addi", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self._binary("arith.subf", "arith.subi", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self._binary("arith.mulf", "arith.muli", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b (integers: toward zero)."""
        return self._binary("arith.divf", "arith.divsi", a, b)

    def remainder(self, a: Value, b: Value) -> Value:
        """a mod b, of indices and unsigned integers."""
        return self.op(f"arith.remui {a}, {b} : {a.type}", a.type)

    def least(self, a: Value, b: int | Value) -> Value:
        """The smaller of two indices."""
        return self.op(f"arith.minui {a}, {self.index(b)} : index", "index")

    def greatest(self, a: Value, b: int | Value) -> Value:
        """The larger of two indices."""
        return self.op(f"arith.maxui {a}, {self.index(b)} : index", "index")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self.op(f"math.fma {a}, {b}, {c} : {a.type}", a.type)

    def negate(self, a: Value) -> Value:
        """-a of a float."""
        return self.op(f"arith.negf {a} : {a.type}", a.type)

    def absolute(self, a: Value) -> Value:
        """|a| of a float."""
        return self.op(f"math.absf {a} : {a.type}", a.type)

    def sqrt(self, a: Value) -> Value:
        """The square root of a float."""
        return self.op(f"math.sqrt {a} : {a.type}", a.type)

    def compare(self, relation: str, a: Value, b: Value) -> Value:
        """An i1 (vector): ``relation`` as arith.cmpf or arith.cmpi names it."""
        lanes = lanes_of(a.type)
        type_ = vector(lanes, "i1") if lanes else "i1"
        op = "arith.cmpf" if element_of(a.type) in _FLOATS else "arith.cmpi"
        return self.op(f"{op} {relation}, {a}, {b} : {a.type}", type_)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition holds, else b."""
        if condition.type == "i1":
            return self.op(f"arith.select {condition}, {a}, {b} : {a.type}", a.type)
        return self.op(f"arith.select {condition}, {a}, {b} : {condition.type}, {a.type}", a.type)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger; b where either is NaN (one instruction on x86, unlike IEEE's maximum)."""
        return self.select(self.compare("ogt", a, b), a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller; b where either is NaN."""
        return self.select(self.compare("olt", a, b), a, b)

    def shift_left(self, a: Value, bits: int) -> Value:
        """a << bits."""
        return self.op(f"arith.shli {a}, {self.number(bits, a.type)} : {a.type}", a.type)

    def shift_right(self, a: Value, bits: int) -> Value:
        """a >> bits, zeros moving in."""
        return self.op(f"arith.shrui {a}, {self.number(bits, a.type)} : {a.type}", a.type)

    def bit_and(self, a: Value, b: Value) -> Value:
        """a & b."""
        return self.op(f"arith.andi {a}, {b} : {a.type}", a.type)

    # -- conversions ---------------------------------------------------------------------------

    def _convert(self, op: str, a: Value, element: str) -> Value:
        lanes = lanes_of(a.type)
        type_ = vector(lanes, element) if lanes else element
        return self.op(f"{op} {a} : {a.type} to {type_}", type_)

    def to_float(self, a: Value) -> Value:
        """Signed integers as f32."""
        return self._convert("arith.sitofp", a, "f32")

    def truncate(self, a: Value, element: str) -> Value:
        """Integers to a narrower type, f32 to bf16 (round to nearest even)."""
        op = "arith.truncf" if element in _FLOATS else "arith.trunci"
        return self._convert(op, a, element)

    def extend(self, a: Value, element: str, *, signed: bool = True) -> Value:
        """Integers to a wider type, bf16 to f32."""
        if element in _FLOATS:
            return self._convert("arith.extf", a, element)
        return self._convert("arith.extsi" if signed else "arith.extui", a, element)

    def bitcast(self, a: Value, type_: str) -> Value:
        """The same bits as another type of the same size."""
        op = "vector.bitcast" if type_.startswith("vector<") else "arith.bitcast"
        return self.op(f"{op} {a} : {a.type} to {type_}", type_)

    def cast_index(self, a: Value, type_: str) -> Value:
        """Between index and an integer."""
        return self.op(f"arith.index_cast {a} : {a.type} to {type_}", type_)

    def cast_bool(self, a: Value) -> Value:
        """An i1 as the index 0 or 1."""
        return self.op(f"arith.index_castui {a} : i1 to index", "index")

    def broadcast(self, a: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        type_ = vector(lanes, a.type)
        return self.op(f"vector.broadcast {a} : {a.type} to {type_}", type_)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a (0..) and b (after a's)."""
        type_ = vector(len(lanes), element_of(a.type))
        spelled = ", ".join(map(str, lanes))
        return self.op(f"vector.shuffle {a}, {b} [{spelled}] : {a.type}, {b.type}", type_)

    # -- intrinsics ------------------------------------------------------------------------------

    def literal(self, number: int, type_: str) -> Value:
        """A constant that stays one through translation, for immediate operands."""
        return self._constant(f"llvm.mlir.constant({number} : {type_}) : {type_}", type_)

    def intrinsic(self, name: str, operands: Sequence[Value], result: str) -> Value:
        """An LLVM intrinsic with one result."""
        arguments = ", ".join(map(str, operands))
        types = ", ".join(o.type for o in operands)
        return self.op(
            f'llvm.call_intrinsic "{name}"({arguments}) : ({types}) -> {result}', result
        )

    def effect(self, name: str, operands: Sequence[Value]) -> None:
        """An LLVM intrinsic without a result."""
        arguments = ", ".join(map(str, operands))
        types = ", ".join(o.type for o in operands)
        self.raw(f'llvm.call_intrinsic "{name}"({arguments}) : ({types}) -> ()')


def _float_text(number: float, element: str) -> str:
    """Hexadecimal bits where decimal text would lose some or is not finite."""
    if element != "f32":
        return f"{number:.9e}"
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    return f"0x{bits:08X}"
