"""k and v of one head, packed as an engine's weights: into scratch, inside the kernel.

`Engine.pack` in vector code. Before: rows of tokens. After, a *word* being the f32 or
the group of bf16 that a lane multiplies at once::

    k: keys are outputs, so blocks of lanes x lanes words are transposed
    v: tokens are the depth, so rows are copied (f32) or interleaved by twos or fours (bf16)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .convert import round_bf16
from .emitter import Emitter
from .engines.base import Engine
from .values import Buffer, Value, lanes_of, vector

__all__ = ["Part", "load_row", "pack_keys", "pack_values"]


@dataclass(frozen=True)
class Part:
    """One head's columns of a matrix, from a row on; ``native`` as for `round_bf16`."""

    buffer: Buffer
    row: Value
    column: Value
    width: int
    native: bool


def load_row(
    e: Emitter, part: Part, row: Value, start: int | Value, count: int, width: int, element: str
) -> Value:
    """``count`` elements of a row as ``element``, zeros up to ``width``."""
    at = [e.add(part.row, row), e.add(part.column, e.index(start))]
    found = e.load_vector(part.buffer, at, count)
    if part.buffer.element != element:
        found = _converted(e, part, found, element)
    if count < width:
        nothing = e.number(0, vector(count, element))
        lanes = [min(lane, count) for lane in range(width)]
        found = e.shuffle(found, nothing, lanes)
    return found


def pack_keys(
    e: Emitter, engine: Engine, part: Part, packed: Buffer, keys: int, room: int
) -> None:
    """Transpose ``keys`` rows of k; zeros up to ``room`` keys and to the padded depth."""
    lanes = engine.lanes
    block = lanes * engine.group
    depth = engine.padded_depth(part.width)
    whole = part.width // block

    def columns(key: Value, valid: int) -> None:
        if whole:
            with e.loop(0, whole) as loop:
                _key_block(e, engine, part, packed, key, valid, loop.index, block, lanes)
        for number in range(whole, -(-depth // block)):
            start = number * block
            count = max(0, min(block, part.width - start))
            words = min(block, depth - start) // engine.group
            at = e.index(number)
            _key_block(e, engine, part, packed, key, valid if count else 0, at, count, words)

    full = keys // lanes * lanes
    if full:
        with e.loop(0, full, lanes) as loop:
            columns(loop.index, lanes)
    for key in range(full, room, lanes):
        columns(e.index(key), max(0, min(lanes, keys - key)))


def pack_values(
    e: Emitter, engine: Engine, part: Part, packed: Buffer, keys: int, room: int
) -> None:
    """Copy or interleave ``keys`` rows of v; zeros up to ``room`` keys and whole panels."""
    full, rest = divmod(keys, engine.group)
    with e.loop(0, full) as loop:
        _value_group(e, engine, part, packed, loop.index, engine.group)
    if rest:
        _value_group(e, engine, part, packed, e.index(full), rest)
    start, end = full + bool(rest), room // engine.group
    if start < end:
        with e.loop(start, end) as loop:
            _value_group(e, engine, part, packed, loop.index, 0)


def _converted(e: Emitter, part: Part, value: Value, element: str) -> Value:
    """f32 to the bits of bf16, or back."""
    if element == "i16":
        return round_bf16(e, value, native=part.native)
    wide = e.shift_left(e.extend(value, "i32", signed=False), 16)
    return e.bitcast(wide, wide.type.replace("i32", "f32"))


def _key_block(
    e: Emitter,
    engine: Engine,
    part: Part,
    packed: Buffer,
    key: Value,
    valid: int,
    number: Value,
    count: int,
    stored: int,
) -> None:
    """``lanes`` keys, of which ``valid`` exist, by ``lanes`` words of their depth.

    Of the elements from block ``number`` on ``count`` exist; ``stored`` words have room.
    """
    lanes, tiles, step = engine.lanes, engine.tiles, engine.groups_per_step
    width = lanes * engine.group
    bits = engine.group * (32 if engine.element == "f32" else 16)
    words = vector(lanes, "f32" if engine.element == "f32" else f"i{bits}")
    rows = [e.number(0, words)] * lanes
    start = e.mul(number, e.index(width))
    for i in range(valid):
        row = e.add(key, e.index(i))
        found = load_row(e, part, row, start, count, width, engine.element)
        rows[i] = e.bitcast(found, words) if engine.group > 1 else found
    if valid:
        rows = _transposed(e, rows)
    panel = e.div(key, e.index(engine.panel))
    tile = e.div(e.remainder(key, e.index(engine.panel)), e.index(lanes))
    offset = e.add(
        e.mul(number, e.index(lanes * tiles * width)), e.mul(tile, e.index(step * width))
    )
    for i, row in enumerate(rows[:stored]):
        steps, within = divmod(i, step)
        at = e.add(offset, e.index((steps * tiles * step + within) * width))
        e.store_vector(e.bitcast(row, vector(width, engine.element)), packed, [panel, at])


def _value_group(
    e: Emitter, engine: Engine, part: Part, packed: Buffer, number: Value, valid: int
) -> None:
    """One depth group of v: ``group`` tokens, of which ``valid`` exist."""
    lanes, tiles, step = engine.lanes, engine.tiles, engine.groups_per_step
    width = lanes * engine.group
    zero = e.number(0, vector(lanes, engine.element))
    within = e.remainder(number, e.index(step))
    before = e.mul(e.sub(number, within), e.index(tiles * width))
    offset = e.add(before, e.mul(within, e.index(width)))
    token = e.mul(number, e.index(engine.group))
    for tile in range(engine.panels(part.width) * tiles):
        start = tile * lanes
        count = max(0, min(lanes, part.width - start))
        rows = [zero] * engine.group
        for i in range(valid if count else 0):
            row = e.add(token, e.index(i))
            rows[i] = load_row(e, part, row, start, count, lanes, engine.element)
        panel, j = divmod(tile, tiles)
        at = e.add(offset, e.index(j * step * width))
        e.store_vector(_interleaved(e, rows), packed, [panel, at])


def _interleaved(e: Emitter, rows: Sequence[Value]) -> Value:
    """a0 b0 a1 b1 ... of two vectors, a0 b0 c0 d0 a1 ... of four; a single one as it is."""
    if len(rows) == 1:
        return rows[0]
    first, second = _interleaved(e, rows[::2]), _interleaved(e, rows[1::2])
    count = lanes_of(first.type)
    return e.shuffle(first, second, [i // 2 + (i % 2) * count for i in range(2 * count)])


def _transposed(e: Emitter, rows: Sequence[Value]) -> list[Value]:
    """A square of words: halves change places, then quarters, and so on."""
    rows = list(rows)
    lanes = len(rows)
    half = lanes // 2
    while half:
        upper = [k if not k & half else k - half + lanes for k in range(lanes)]
        lower = [k + half if not k & half else k + lanes for k in range(lanes)]
        for i in (i for i in range(lanes) if not i & half):
            a, b = rows[i], rows[i + half]
            rows[i], rows[i + half] = e.shuffle(a, b, upper), e.shuffle(a, b, lower)
        half //= 2
    return rows
