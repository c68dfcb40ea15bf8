"""Rows of f32 to bf16, kept as i16."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import Emitter
from .executable import Kernel, Operand, Shared
from .rows import check_padding, each_row, groups_for, rows_of, sweep, width_for, zero_fill
from .values import Buffer, Value, lanes_of, vector

__all__ = ["convert_kernel", "convert_reference", "round_bf16", "round_bf16_pair"]

_NATIVE = {
    16: "llvm.x86.avx512bf16.cvtneps2bf16.512",
    8: "llvm.x86.avx512bf16.cvtneps2bf16.256",
}


def convert_kernel(
    rows: int,
    depth: int,
    *,
    lanes: int,
    native: bool = False,
    padded_rows: int | None = None,
    row_stride: int | None = None,
    workgroups: int | None = None,
) -> Kernel:
    """X [rows, depth] f32 to Q [padded_rows, row_stride], bf16 as i16.

    Rows beyond ``rows`` stay undefined; the columns from ``depth`` on are zero. ``native`` as for
    `round_bf16`.
    """
    padded, stride = padded_rows or rows, row_stride or depth
    check_padding(rows, depth, padded, stride)
    groups = workgroups or groups_for(rows)
    width = width_for(depth, lanes)

    def one(e: Emitter, buffers: dict[str, Buffer], shared: Shared, row: Value) -> None:
        del shared

        def convert(column: Value, _: list[Value], __: int) -> list[Value]:
            x = e.load_vector(buffers["X"], [row, column], width)
            narrow = round_bf16(e, x, native=native)
            e.store_vector(narrow, buffers["Q"], [row, column])
            return []

        sweep(e, depth, lanes, convert)
        zero_fill(e, buffers["Q"], row, depth)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with rows_of(e, group, rows, groups) as row:
            one(e, buffers, Shared(e), row)

    label = "native" if native else "plain"
    name = f"convert_bf16_{label}_{rows}x{depth}_to_{padded}x{stride}_by{lanes}_in{groups}"
    inputs = (Operand("X", (rows, depth), "f32"),)
    output = Operand("Q", (padded, stride), "i16")
    return Kernel(name, inputs, (output,), groups, body, each_row(rows, ["X", "Q"], one))


def round_bf16(e: Emitter, x: Value, *, native: bool) -> Value:
    """A vector of f32 as bf16 in i16, to nearest even.

    ``native`` uses AVX512-BF16's instruction for 16 and 8 lanes, which flushes denormals; else
    it is some eight instructions of integer arithmetic (IREE knows no better for arith.truncf).
    """
    lanes = lanes_of(x.type)
    if native and lanes in _NATIVE:
        narrow = e.intrinsic(_NATIVE[lanes], [x], vector(lanes, "bf16"))
    else:
        narrow = e.truncate(x, "bf16")
    return e.bitcast(narrow, vector(lanes, "i16"))


def round_bf16_pair(e: Emitter, first: Value, second: Value, *, native: bool) -> Value:
    """Two vectors of f32 as one of bf16 in i16, ``first`` in its lower half; as `round_bf16`."""
    lanes = lanes_of(first.type)
    if native and lanes == 16:
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        narrow = e.intrinsic(name, [second, first], vector(32, "bf16"))
        return e.bitcast(narrow, vector(32, "i16"))
    lower, upper = (round_bf16(e, part, native=native) for part in (first, second))
    return e.shuffle(lower, upper, range(2 * lanes))


def convert_reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What `convert_kernel` computes of finite numbers, denormals aside."""
    bits = x.astype(np.float32).view(np.uint32)
    nearest_even = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return ((bits + nearest_even) >> np.uint32(16)).astype(np.uint16).view(np.int16)
