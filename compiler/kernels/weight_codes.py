"""Reading stored weights in a kernel: from words to the numbers that are multiplied.

Before: a vector of words, each with neighbours along the depth of one output, and a vector of
scales (`weight_format`). After: a vector of f32 for each neighbour. A code is moved to the upper
end of its word and back, which leaves its sign; AVX-512 looks the sixteen 4-bit codes up.
"""

from __future__ import annotations

from collections.abc import Sequence

from .emitter import Emitter
from .values import Buffer, Value, lanes_of, vector
from .weight_format import WeightFormat

__all__ = ["codes_of", "interleaved", "load_scales"]

_LOOK_UP = "llvm.x86.avx512.permvar.sf.512"


def codes_of(e: Emitter, form: WeightFormat, words: Value, count: int) -> list[Value]:
    """The first ``count`` codes of each word as vectors of f32, exactly."""
    if form.bits == 4 and form.lanes == 16:
        return [_looked_up(e, words, n) for n in range(count)]
    return [_shifted(e, form, words, n) for n in range(count)]


def _looked_up(e: Emitter, words: Value, n: int) -> Value:
    # The instruction reads the lowest four bits of each lane.
    numbers = [float(code if code < 8 else code - 16) for code in range(16)]
    table = e.floats(numbers)
    index = e.shift_right(words, 4 * n) if n else words
    return e.intrinsic(_LOOK_UP, [table, index], table.type)


def _shifted(e: Emitter, form: WeightFormat, words: Value, n: int) -> Value:
    up = 32 - form.bits
    left = up - n * form.bits
    moved = e.shift_left(words, left) if left else words
    bits = e.number(up, words.type)
    return e.to_float(e.op(f"arith.shrsi {moved}, {bits} : {words.type}", words.type))


def load_scales(
    e: Emitter, form: WeightFormat, scales: Buffer, tile: Value, group: Value
) -> Value:
    """The scales of a tile as f32; ``group`` counts along the depth, for 4 bits only."""
    if form.bits == 8:
        return e.load_vector(scales, [tile, 0], form.lanes)
    narrow = e.load_vector(scales, [tile, e.mul(group, e.index(form.lanes))], form.lanes)
    wide = e.shift_left(e.extend(narrow, "i32", signed=False), 16)
    return e.bitcast(wide, vector(form.lanes, "f32"))


def interleaved(e: Emitter, parts: Sequence[Value]) -> Value:
    """One vector with, lane by lane, an element of each of ``parts`` (1, 2 or 4 vectors)."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    first, second = interleaved(e, parts[:half]), interleaved(e, parts[half:])
    size = lanes_of(first.type)
    order = []
    for start in range(0, size, half):
        order += [*range(start, start + half), *range(size + start, size + start + half)]
    return e.shuffle(first, second, order)
