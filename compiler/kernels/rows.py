"""Walking over the rows of a matrix, and over the vectors of a row of any depth.

A row is cut into vectors of ``lanes`` elements. If they do not divide its depth, the last vector
overlaps the one before it; a row shorter than a vector is cut by the largest power of two that
fits. So every access is a whole vector, and nothing outside the row is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .emitter import Emitter
from .executable import ByRows, Shared
from .values import Buffer, Value, bytes_of, element_of, lanes_of, vector

__all__ = [
    "Row",
    "Step",
    "across",
    "check_padding",
    "each_row",
    "groups_for",
    "rows_of",
    "sweep",
    "width_for",
    "zero_fill",
]

Step = Callable[[Value, list[Value], int], Sequence[Value]]
"""Gets the vector's first column, the carried values, and how many of the vector's first lanes
an earlier vector covered; returns the next carried values."""

Row = Callable[[Emitter, dict[str, Buffer], Shared, Value], None]
"""Does all of one row."""

_UNROLL = 4
_LEAST_ROWS = 16
_MOST_GROUPS = 8
_STORE_BYTES = 64


def groups_for(rows: int) -> int:
    """How many work-groups share ``rows``: at most eight, of sixteen rows or more."""
    return max(1, min(_MOST_GROUPS, rows // _LEAST_ROWS))


def width_for(depth: int, lanes: int) -> int:
    """The width of the vectors that `sweep` cuts a row of ``depth`` elements into."""
    return min(lanes, 1 << (depth.bit_length() - 1))


@contextmanager
def rows_of(e: Emitter, group: Value, rows: int, workgroups: int) -> Iterator[Value]:
    """A loop over the contiguous rows of one work-group out of ``workgroups``."""
    chunk = -(-rows // workgroups)
    first = e.mul(group, e.index(chunk))
    end = e.add(first, e.index(chunk))
    if chunk * workgroups != rows:
        end = e.least(end, rows)
    with e.loop(first, end) as loop:
        yield loop.index


def each_row(
    rows: int,
    operands: Sequence[str],
    one: Row,
    prepare: Callable[[Shared], object] = lambda shared: None,
) -> ByRows:
    """A kernel that does one row after the other, and touches that row alone of ``operands``."""

    def body(
        e: Emitter, buffers: dict[str, Buffer], shared: Shared, first: Value, count: int
    ) -> None:
        with e.loop(first, e.add(first, e.index(count))) as loop:
            one(e, buffers, shared, loop.index)

    return ByRows(rows=rows, multiple=1, operands=frozenset(operands), prepare=prepare, body=body)


def sweep(
    e: Emitter, depth: int, lanes: int, step: Step, carried: Sequence[Value] = ()
) -> list[list[Value]]:
    """Run ``step`` on every vector of a row of ``depth`` elements.

    Up to four chains of carried values run side by side, each beginning with ``carried``, so
    that additions need not wait for one another. Returns what each chain ends with.
    """
    width = width_for(depth, lanes)
    whole, rest = divmod(depth, width)
    unroll = min(_UNROLL, whole)
    chains = [list(carried) for _ in range(unroll)]
    rounds = whole // unroll
    stride = unroll * width

    def advance(first: Value, offsets: Sequence[int], before: list[list[Value]]) -> None:
        for chain, offset in enumerate(offsets):
            column = e.add(first, e.index(offset)) if offset else first
            before[chain] = list(step(column, before[chain], 0))

    if rounds > 1:
        flat = [value for chain in chains for value in chain]
        with e.loop(0, rounds * stride, stride, carried=flat) as loop:
            chains = _split(loop.values, unroll)
            advance(loop.index, range(0, stride, width), chains)
            loop.carry([value for chain in chains for value in chain])
        chains = _split(loop.results, unroll)
    else:
        advance(e.index(0), range(0, stride, width), chains)
    for number in range(rounds * unroll, whole):
        chain = number % unroll
        chains[chain] = list(step(e.index(number * width), chains[chain], 0))
    if rest:
        chains[-1] = list(step(e.index(depth - width), chains[-1], width - rest))
    return chains


def across(
    e: Emitter, combine: Callable[[Value, Value], Value], vectors: Sequence[Value]
) -> Value:
    """One scalar from all lanes of ``vectors``, combined by halves."""
    pending = list(vectors)
    while len(pending) > 1:
        pending.append(combine(pending.pop(0), pending.pop(0)))
    (value,) = pending
    lanes = lanes_of(value.type)
    while lanes > 1:
        lanes //= 2
        low = e.shuffle(value, value, range(lanes))
        high = e.shuffle(value, value, range(lanes, 2 * lanes))
        value = combine(low, high)
    element = element_of(value.type)
    return e.op(f"vector.extract {value}[0] : {element} from {value.type}", element)


def check_padding(rows: int, depth: int, padded_rows: int, row_stride: int) -> None:
    """Raises ValueError unless a rows x depth matrix fits into the padded one."""
    if rows < 1 or depth < 1 or padded_rows < rows or row_stride < depth:
        raise ValueError(f"{rows}x{depth} does not fit into {padded_rows}x{row_stride}")


def zero_fill(e: Emitter, buffer: Buffer, row: Value, start: int) -> None:
    """Zeros in the columns of ``row`` from ``start`` to the end of the buffer's rows."""
    widest = _STORE_BYTES // bytes_of(buffer.element)
    left = buffer.shape[-1] - start
    whole = left // widest * widest
    zero = e.number(0, vector(widest, buffer.element))
    if whole > _UNROLL * widest:
        with e.loop(start, start + whole, widest) as loop:
            e.store_vector(zero, buffer, [row, loop.index])
        start, left = start + whole, left - whole
    while left:
        width = min(widest, 1 << (left.bit_length() - 1))
        zero = e.number(0, vector(width, buffer.element))
        e.store_vector(zero, buffer, [row, start])
        start, left = start + width, left - width


def _split(values: Sequence[Value], chains: int) -> list[list[Value]]:
    each = len(values) // chains
    return [list(values[i * each : (i + 1) * each]) for i in range(chains)]
