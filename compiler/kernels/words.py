"""Activations by depth: 32-bit words of rows, turned so that neighbouring rows stand together.

Before: X [padded rows, stride] of bytes or bf16, a row being words of four or two values.
After: Y [blocks of rows, words of a row, rows of a block] i32, from which a step of depth of
many rows is one load. `turned` is the 16 x 16 transposition in registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .emitter import Emitter
from .executable import Kernel, Operand
from .rows import groups_for, rows_of
from .values import Buffer, Value

__all__ = ["turned", "words_kernel", "words_shape"]

_SIDE = 16


def turned(e: Emitter, vectors: Sequence[Value]) -> list[Value]:
    """The transpose of sixteen vectors of sixteen 32-bit lanes, in 64 shuffles."""
    found = list(vectors)
    for distance in (1, 2, 4, 8):
        low = [n + 16 - distance if n & distance else n for n in range(_SIDE)]
        high = [n + 16 if n & distance else n + distance for n in range(_SIDE)]
        for i in range(_SIDE):
            if not i & distance:
                a, b = found[i], found[i + distance]
                found[i] = e.shuffle(a, b, low)
                found[i + distance] = e.shuffle(a, b, high)
    return found


def words_shape(form_rows: int, row_bytes: int, block: int) -> tuple[int, int, int]:
    """The shape of Y for rows of ``row_bytes`` in blocks of ``block`` rows."""
    return math.ceil(form_rows / block), row_bytes // 4, block


def words_kernel(rows: int, stride: int, element: str, block: int) -> Kernel:
    """``rows`` and the words of a row are multiples of 16; ``element`` is i8 or i16."""
    per_word = {"i8": 4, "i16": 2}[element]
    words = stride // per_word
    groups = groups_for(rows)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with rows_of(e, group, rows // _SIDE, groups) as tile:
            first = e.mul(tile, e.index(_SIDE))
            number = e.op(f"arith.divui {first}, {e.index(block)} : index", "index")
            within = e.remainder(first, e.index(block))
            with e.loop(0, words, _SIDE) as loop:
                column = e.mul(loop.index, e.index(per_word))
                found = [
                    e.bitcast(
                        e.load_vector(
                            buffers["X"], [e.add(first, e.index(i)), column], _SIDE * per_word
                        ),
                        "vector<16xi32>",
                    )
                    for i in range(_SIDE)
                ]
                for i, word in enumerate(turned(e, found)):
                    at = [number, e.add(loop.index, e.index(i)), within]
                    e.store_vector(word, buffers["Y"], at)

    name = f"words_{element}_{rows}x{stride}_by{block}"
    inputs = (Operand("X", (rows, stride), element),)
    shape = words_shape(rows, words * 4, block)
    return Kernel(name, inputs, (Operand("Y", shape, "i32"),), groups, body)
