"""Rows of scores turned into unnormalised probabilities, in place.

Before: products q k^T of a block of queries and a chunk of keys, as an engine left them. After,
in the same memory: exp(score - maximum) as the activations of the product with v, and 1 / sum (or
what the sums so far are to be multiplied with) for each row::

    first sweep   scale, bias and mask, stored again; the highest of each lane of a row
    in between    maxima of as many rows as there are lanes, found together by transposing
    second sweep  exponentials; the sums of each lane of a row
    at the end    totals, as the maxima before, and one division for as many rows

So no row waits for its own maximum, which is a long chain of few instructions.

A row that forbids everything has the lowest finite number as its maximum, so that its total is
next to nothing, while a row that allows anything adds up to about 1 or more: that tells them
apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .attention_rows import combined_rows, fold, inverse
from .convert import round_bf16, round_bf16_pair
from .emitter import Emitter
from .engines.base import Engine, words_of
from .values import Buffer, Value, vector
from .vector_math import Accuracy, exp2_nonpositive

__all__ = ["LOWEST", "Finish", "Running", "Scores", "Softmax", "native_bf16"]

LOWEST = float(np.finfo(np.float32).min)
_LOG2E = math.log2(math.e)
# Neighbours among f32 of this size are 32 apart.
_HUGE = 2.0**28
# Twos of vectors.
_UNROLL = 8
_CHAINS = 4

Finish = Callable[[Value, Value, Value, int], Value]
"""From row, sums, first key and how many keys exist to finished scores, -inf where forbidden."""

_Step = Callable[[Value, int, list[Value]], list[Value]]
"""From first key, how many of two vectors of them exist, and carried values to the next ones."""


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
        shape = (rows, keys * words_of(engine.element))
        return cls(e.scratch(shape, engine.element), engine.lanes, native_bf16(engine))

    @property
    def _words(self) -> int:
        return words_of(self.buffer.element)

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

    def store_probabilities(
        self, e: Emitter, values: Sequence[Value], row: Value, key: Value
    ) -> None:
        """``lanes`` probabilities each, of neighbours; scores up to there must have been read.

        By twos, bf16 is stored as what an engine loads: narrower stores would not be forwarded.
        """
        if self._words == 1:
            for i, value in enumerate(values):
                e.store_vector(value, self.buffer, [row, e.add(key, e.index(i * self.lanes))])
            return
        for i in range(0, len(values), 2):
            at = e.add(key, e.index(i * self.lanes))
            if i + 1 < len(values):
                found = round_bf16_pair(e, values[i], values[i + 1], native=self.native)
            else:
                found = round_bf16(e, values[i], native=self.native)
            e.store_vector(found, self.buffer, [row, at])


@dataclass(frozen=True)
class Running:
    """Maximum and total of rows so far, from row ``first`` on, up to whole vectors."""

    maximum: Buffer
    total: Buffer
    first: Value


class Softmax:
    """``factors``: scratch of f32, one for each of ``rows`` rows and up to whole vectors."""

    def __init__(self, e: Emitter, scores: Scores, rows: int, *, native: bool) -> None:
        self._e, self._scores, self._rows, self._native = e, scores, rows, native
        lanes = scores.lanes
        padded = -(-rows // lanes) * lanes
        self.factors = e.scratch((padded,), "f32")
        self._bases = e.scratch((padded,), "f32")
        self._offsets = e.scratch((padded,), "f32")
        self._by_lane = e.scratch((rows, lanes), "f32")

    def soften(self, finish: Finish, keys: int, room: int, running: Running | None) -> None:
        """Soften all rows of ``keys`` scores, and put zeros up to ``room``.

        ``factors`` get 1 / sum, or with ``running`` what sums so far are worth now.
        """
        e, lanes = self._e, self._scores.lanes
        with e.loop(0, self._rows) as loop:
            highest = self._highest(finish, loop.index, keys)
            e.store_vector(highest, self._by_lane, [loop.index, 0])
        for first in range(0, self._rows, lanes):
            maximum = self._of_rows(e.maximum, first)
            before = None
            if running is not None:
                at = [e.add(running.first, e.index(first))]
                before = e.load_vector(running.maximum, at, lanes)
                maximum = e.maximum(maximum, before)
                e.store_vector(maximum, running.maximum, at)
            base, offset = self._powers(maximum)
            e.store_vector(base, self._bases, [first])
            e.store_vector(offset, self._offsets, [first])
            if before is not None:
                # With the past's own rounding: see `_powers`.
                power = e.add(e.mul(before, base), offset)
                factor = exp2_nonpositive(e, power, native=self._native)
                e.store_vector(factor, self.factors, [first])
        with e.loop(0, self._rows) as loop:
            total = self._exponentials(loop.index, keys, room)
            e.store_vector(total, self._by_lane, [loop.index, 0])
        for first in range(0, self._rows, lanes):
            total = self._of_rows(e.add, first)
            if running is None:
                e.store_vector(inverse(e, total), self.factors, [first])
            else:
                at = [e.add(running.first, e.index(first))]
                factor = e.load_vector(self.factors, [first], lanes)
                past = e.load_vector(running.total, at, lanes)
                e.store_vector(e.fma(past, factor, total), running.total, at)

    def _of_rows(self, combine: Callable[[Value, Value], Value], first: int) -> Value:
        """Lane i: what all lanes of row ``first + i`` combine to; the last row where none is."""
        e, lanes = self._e, self._scores.lanes
        rows = [min(first + i, self._rows - 1) for i in range(lanes)]
        found = [e.load_vector(self._by_lane, [row, 0], lanes) for row in rows]
        return combined_rows(e, combine, found)

    def _highest(self, finish: Finish, row: Value, keys: int) -> Value:
        """Finish a row; the highest of each lane, at least `LOWEST`."""
        e, scores, lanes = self._e, self._scores, self._scores.lanes

        def step(at: Value, count: int, before: list[Value]) -> list[Value]:
            after = list(before)
            for i in range(0, count, lanes):
                place = e.add(at, e.index(i))
                value = finish(row, scores.load(e, row, place), place, min(lanes, count - i))
                scores.store(e, value, row, place)
                after.append(e.maximum(value, after.pop(0)))
            return after

        return fold(e.maximum, self._sweep(keys, e.number(LOWEST, self._wide), step))

    def _powers(self, maximum: Value) -> tuple[Value, Value]:
        """Base and offset: exp(score - maximum) is 2**(score * base + offset).

        Rounding the offset changes a row by one factor, which its total has too. Before that
        could overflow, scores differ by nothing or by too much to count: there, any base will do.
        """
        e = self._e
        huge = e.compare("ogt", e.absolute(maximum), e.number(_HUGE, self._wide))
        base = e.select(huge, e.number(1.0, self._wide), e.number(_LOG2E, self._wide))
        return base, e.negate(e.mul(maximum, base))

    def _exponentials(self, row: Value, keys: int, room: int) -> Value:
        """Put the probabilities of a row, and zeros up to ``room``; the sum of each lane."""
        e, scores, lanes = self._e, self._scores, self._scores.lanes
        base, offset = (
            e.broadcast(e.load(of_row, [row]), lanes) for of_row in (self._bases, self._offsets)
        )
        zero = e.number(0.0, self._wide)

        def step(at: Value, count: int, before: list[Value]) -> list[Value]:
            after = list(before)
            found = []
            for i in range(0, count, lanes):
                score = scores.load(e, row, e.add(at, e.index(i)))
                power = e.fma(score, base, offset)
                found.append(exp2_nonpositive(e, power, scores.accuracy, native=self._native))
                after.append(e.add(found[-1], after.pop(0)))
            if count < 2 * lanes:
                found += [zero] * ((room - keys) // lanes)
            scores.store_probabilities(e, found, row, at)
            return after

        sums = self._sweep(keys, zero, step)
        if keys % (2 * lanes) == 0:
            nothing = [zero] * ((room - keys) // lanes)
            scores.store_probabilities(e, nothing, row, e.index(keys))
        return fold(e.add, sums)

    def _sweep(self, keys: int, start: Value, step: _Step) -> list[Value]:
        """``step`` for every two vectors of a row, on some chains of carried values."""
        e, unit = self._e, 2 * self._scores.lanes
        chains = [start] * min(_CHAINS, -(-keys // self._scores.lanes))
        whole = 0
        if keys > _UNROLL * unit:
            at_once = _UNROLL // 2 * unit
            whole = keys // at_once * at_once
            with e.loop(0, whole, at_once, carried=chains) as loop:
                chains = loop.values
                for i in range(0, at_once, unit):
                    chains = step(e.add(loop.index, e.index(i)), unit, chains)
                loop.carry(chains)
            chains = loop.results
        for first in range(whole, keys, unit):
            chains = step(e.index(first), min(unit, keys - first), chains)
        return chains

    @property
    def _wide(self) -> str:
        return vector(self._scores.lanes, "f32")
