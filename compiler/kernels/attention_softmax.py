"""Rows of scores turned into unnormalised probabilities, in place.

Before: f32 scores of a block of queries against a chunk of keys, -inf where forbidden. After, in
the same memory: exp(score - maximum) as the activations of the product with v, and 1 / sum (or
what the sums so far are to be multiplied with) for each row.

A row that forbids everything has the lowest finite number as its maximum, so that its total is
next to nothing, while a row that allows anything adds up to 1 or more: that tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .convert import round_bf16
from .emitter import Buffer, Emitter, Value, vector
from .engines.base import Engine
from .vector_math import Accuracy, exp_nonpositive

__all__ = ["LOWEST", "Running", "Scores", "inverse", "native_bf16", "soften"]

LOWEST = float(np.finfo(np.float32).min)
_ALLOWED = 1e-30
_UNROLL = 16
_CHAINS = 4


def native_bf16(engine: Engine) -> bool:
    """Whether a core that has this engine rounds to bf16 in one instruction."""
    return "avx512bf16" in engine.features


@dataclass(frozen=True)
class Scores:
    """A block of scores; the probabilities take the first half of a row where they are bf16."""

    buffer: Buffer
    lanes: int
    native: bool

    @classmethod
    def scratch(cls, e: Emitter, engine: Engine, rows: int, keys: int) -> Scores:
        """Room for ``rows`` x ``keys``."""
        words = 1 if engine.element == "f32" else 2
        return cls(
            e.scratch((rows, keys * words), engine.element), engine.lanes, native_bf16(engine)
        )

    @property
    def _words(self) -> int:
        return 1 if self.buffer.element == "f32" else 2

    @property
    def accuracy(self) -> Accuracy:
        """What exponential the probabilities are worth."""
        return "accurate" if self._words == 1 else "fast"

    def load(self, e: Emitter, row: Value, key: Value) -> Value:
        """``lanes`` scores from ``key`` on."""
        at = [row, e.mul(key, e.index(self._words))]
        found = e.load_vector(self.buffer, at, self.lanes * self._words)
        return found if self._words == 1 else e.bitcast(found, vector(self.lanes, "f32"))

    def store(self, e: Emitter, value: Value, row: Value, key: Value) -> None:
        """``lanes`` scores from ``key`` on."""
        type_ = vector(self.lanes * self._words, self.buffer.element)
        found = value if self._words == 1 else e.bitcast(value, type_)
        e.store_vector(found, self.buffer, [row, e.mul(key, e.index(self._words))])

    def store_probabilities(self, e: Emitter, value: Value, row: Value, key: Value) -> None:
        """``lanes`` probabilities; scores up to there must have been read."""
        if self._words == 2:
            value = round_bf16(e, value, native=self.native)
        e.store_vector(value, self.buffer, [row, key])


@dataclass(frozen=True)
class Running:
    """Maximum and total of rows so far, from row ``first`` on, [rows] each."""

    maximum: Buffer
    total: Buffer
    first: Value


def soften(
    e: Emitter, scores: Scores, rows: int, keys: int, factors: Buffer, running: Running | None
) -> None:
    """Soften ``rows`` rows of ``keys`` scores, a multiple of the lanes.

    ``factors`` [rows, lanes] gets 1 / sum, or with ``running`` what sums so far are worth now.
    """
    lanes = scores.lanes
    wide = vector(lanes, "f32")
    lowest = e.number(LOWEST, wide)
    nothing = e.number(0.0, wide)
    with e.loop(0, rows) as loop:
        row = loop.index

        def highest(at: Value, before: Value) -> Value:
            return e.maximum(scores.load(e, row, at), before)

        found = _sweep(e, keys, lanes, lowest, highest)
        maximum = across(e, e.maximum, _fold(e, e.maximum, found))
        slot = before = None
        if running is not None:
            slot = e.add(running.first, row)
            before = e.broadcast(e.load(running.maximum, [slot]), lanes)
            maximum = e.maximum(maximum, before)

        def soft(at: Value, total: Value) -> Value:
            value = exp_nonpositive(e, e.sub(scores.load(e, row, at), maximum), scores.accuracy)
            scores.store_probabilities(e, value, row, at)
            return e.add(total, value)

        total = across(e, e.add, _fold(e, e.add, _sweep(e, keys, lanes, nothing, soft)))
        if running is None or slot is None or before is None:
            factor = inverse(e, total)
        else:
            factor = exp_nonpositive(e, e.sub(before, maximum))
            past = e.broadcast(e.load(running.total, [slot]), lanes)
            e.store(first_lane(e, e.fma(past, factor, total)), running.total, [slot])
            e.store(first_lane(e, maximum), running.maximum, [slot])
        e.store_vector(factor, factors, [row, 0])


def inverse(e: Emitter, total: Value) -> Value:
    """1 / total, or 0 for a row that forbids everything."""
    allowed = e.compare("ogt", total, e.number(_ALLOWED, total.type))
    return e.select(allowed, e.div(e.number(1.0, total.type), total), e.number(0.0, total.type))


def across(e: Emitter, combine: Callable[[Value, Value], Value], value: Value) -> Value:
    """All lanes combined, in every lane."""
    lanes = int(value.type[len("vector<") :].split("x")[0])
    half = lanes // 2
    while half:
        value = combine(value, e.shuffle(value, value, [lane ^ half for lane in range(lanes)]))
        half //= 2
    return value


def first_lane(e: Emitter, value: Value) -> Value:
    """The scalar in lane 0."""
    return e.op(f"vector.extract {value}[0] : f32 from {value.type}", "f32")


def _fold(e: Emitter, combine: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    pending = list(values)
    while len(pending) > 1:
        pending.append(combine(pending.pop(0), pending.pop(0)))
    return pending[0]


def _sweep(
    e: Emitter, keys: int, lanes: int, start: Value, step: Callable[[Value, Value], Value]
) -> list[Value]:
    """``step`` for every vector of a row, on some chains of carried values side by side."""
    vectors = keys // lanes
    chains = [start] * min(_CHAINS, vectors)

    def advance(first: Value, count: int, before: list[Value]) -> list[Value]:
        after = list(before)
        for i in range(count):
            at = e.add(first, e.index(i * lanes))
            after[i % len(after)] = step(at, after[i % len(after)])
        return after

    if vectors <= _UNROLL:
        return advance(e.index(0), vectors, chains)
    unroll = _UNROLL // 2
    whole = vectors // unroll * unroll
    with e.loop(0, whole * lanes, unroll * lanes, carried=chains) as loop:
        loop.carry(advance(loop.index, unroll, loop.values))
    return advance(e.index(whole * lanes), vectors - whole, loop.results)
