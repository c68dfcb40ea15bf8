"""A number for each of several rows, from a vector of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .emitter import Emitter
from .values import Value

__all__ = ["combined_rows", "fold", "inverse"]

_ALLOWED = 1e-30


def combined_rows(
    e: Emitter, combine: Callable[[Value, Value], Value], rows: Sequence[Value]
) -> Value:
    """Lane i: what all lanes of ``rows[i]`` combine to; as many rows as lanes, a power of two.

    Vectors meet by twos: each round leaves half as many, of twice as many rows.
    """
    found, width = list(rows), len(rows)
    while width > 1:
        half = width // 2
        # Of every `width` lanes of two vectors, the one half and the other.
        lower = [n + i for n in range(0, 2 * len(rows), width) for i in range(half)]
        upper = [lane + half for lane in lower]
        found = [
            combine(e.shuffle(a, b, lower), e.shuffle(a, b, upper))
            for a, b in zip(found[::2], found[1::2], strict=True)
        ]
        width = half
    return found[0]


def fold(combine: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    """All values combined, by twos."""
    pending = list(values)
    while len(pending) > 1:
        pending.append(combine(pending.pop(0), pending.pop(0)))
    return pending[0]


def inverse(e: Emitter, total: Value) -> Value:
    """1 / total, or 0 for a row that forbids everything."""
    allowed = e.compare("ogt", total, e.number(_ALLOWED, total.type))
    return e.select(allowed, e.div(e.number(1.0, total.type), total), e.number(0.0, total.type))
