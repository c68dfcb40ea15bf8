"""Writing the body of a kernel: typed values in, MLIR text out.

An `Emitter` appends operations of the arith, math, vector, memref, scf and llvm dialects.
Structured loops are context managers::

    with e.loop(0, depth, 1, carried=[zero]) as loop:
        loop.carry([e.fma(a, b, loop.values[0])])
    total = loop.results[0]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .arithmetic import Arithmetic
from .values import Buffer, Value, bytes_of, vector

__all__ = ["Emitter", "Loop"]


@dataclass
class Loop:
    """A loop under construction: ``index``, ``values`` inside; ``results`` after it."""

    index: Value
    values: list[Value]
    results: list[Value] = field(default_factory=list)
    carried: list[Value] | None = None

    def carry(self, values: Sequence[Value]) -> None:
        """What the next round (or the result) gets for each carried value."""
        self.carried = list(values)


class Emitter(Arithmetic):
    """Appends operations to the body of one function: memory and loops beside `Arithmetic`."""

    # -- memory --------------------------------------------------------------------------------

    def _at(self, indices: Sequence[int | Value]) -> str:
        return "[" + ", ".join(str(self.index(i)) for i in indices) + "]"

    def load(self, buffer: Buffer, indices: Sequence[int | Value]) -> Value:
        """One element."""
        at = self._at(indices)
        return self.op(f"memref.load {buffer}{at} : {buffer.type}", buffer.element)

    def store(self, value: Value, buffer: Buffer, indices: Sequence[int | Value]) -> None:
        """One element."""
        at = self._at(indices)
        self.raw(f"memref.store {value}, {buffer}{at} : {buffer.type}")

    def load_vector(self, buffer: Buffer, indices: Sequence[int | Value], lanes: int) -> Value:
        """``lanes`` neighbours of the last dimension."""
        at = self._at(indices)
        type_ = vector(lanes, buffer.element)
        return self.op(f"vector.load {buffer}{at} : {buffer.type}, {type_}", type_)

    def store_vector(self, value: Value, buffer: Buffer, indices: Sequence[int | Value]) -> None:
        """Neighbours of the last dimension."""
        at = self._at(indices)
        self.raw(f"vector.store {value}, {buffer}{at} : {buffer.type}, {value.type}")

    def prefetch(self, buffer: Buffer, indices: Sequence[int | Value]) -> None:
        """Ask for the cache line of one element, which need not be within the buffer."""
        at = self._at(indices)
        self.raw(f"memref.prefetch {buffer}{at}, read, locality<3>, data : {buffer.type}")

    def scratch(self, shape: Sequence[int], element: str) -> Buffer:
        """Memory on the stack of the work-group, 64-byte aligned."""
        buffer = Buffer(self.fresh(), tuple(shape), element)
        segments = "operandSegmentSizes = array<i32: 0, 0>"
        self.raw(
            f'{buffer} = "memref.alloca"() <{{alignment = 64 : i64, {segments}}}> '
            f": () -> {buffer.type}"
        )
        return buffer

    def shifted(self, buffer: Buffer, rows: int, row: Value, to: Value) -> Buffer:
        """``buffer`` [some rows, width] as one of ``rows``, whose ``row`` is row ``to`` of it.

        Only rows that ``buffer`` has may be touched.
        """
        width = buffer.shape[1]
        shift = self.mul(self.sub(to, row), self.index(width))
        found = Buffer(self.fresh(), (rows, width), buffer.element, shift)
        self.raw(
            f"{found} = memref.reinterpret_cast {buffer} to offset: [{shift}], "
            f"sizes: [{rows}, {width}], strides: [{width}, 1] : {buffer.type} to {found.type}"
        )
        return found

    def pointer(self, buffer: Buffer, byte_offset: Value | None = None) -> Value:
        """The address of a buffer, plus a number of bytes, for an intrinsic."""
        base = self.op(
            f"memref.extract_aligned_pointer_as_index {buffer} : {buffer.type} -> index", "index"
        )
        if buffer.shift is not None:
            size = self.index(bytes_of(buffer.element))
            base = self.add(base, self.mul(buffer.shift, size))
        if byte_offset is not None:
            base = self.add(base, byte_offset)
        address = self.cast_index(base, "i64")
        return self.op(f"llvm.inttoptr {address} : i64 to !llvm.ptr", "!llvm.ptr")

    # -- loops ----------------------------------------------------------------------------------

    @contextmanager
    def loop(
        self,
        lower: int | Value,
        upper: int | Value,
        step: int | Value = 1,
        *,
        carried: Sequence[Value] = (),
    ) -> Iterator[Loop]:
        """``for index in range(lower, upper, step)``."""
        index = Value(self.fresh(), "index")
        values = [Value(self.fresh(), v.type) for v in carried]
        bounds = f"{self.index(lower)} to {self.index(upper)} step {self.index(step)}"
        head = f"scf.for {index} = {bounds}"
        result = self.fresh()
        types = ", ".join(v.type for v in carried)
        if carried:
            pairs = ", ".join(f"{v} = {c}" for v, c in zip(values, carried, strict=True))
            head = f"{result}:{len(values)} = {head} iter_args({pairs}) -> ({types})"
        self.raw(head + " {")
        loop = Loop(index, values)
        yield loop
        if carried:
            if loop.carried is None or [v.type for v in loop.carried] != [v.type for v in carried]:
                raise ValueError(
                    "a loop must carry one value of the same type for each it began with"
                )
            self.raw(f"scf.yield {', '.join(map(str, loop.carried))} : {types}")
            loop.results = [Value(f"{result}#{i}", v.type) for i, v in enumerate(carried)]
        self.raw("}")
