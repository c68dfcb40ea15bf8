"""Engines whose sums stay in registers through the whole depth: the walk along the depth."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from ..emitter import Emitter
from ..values import Value, bytes_of, vector
from .base import LINE, Block, Engine, Sink

__all__ = ["InRegisters"]


@dataclass(frozen=True)
class InRegisters(Engine):
    """A round takes ``at_once`` neighbouring depth groups; groups out of order, as many as stand
    together."""

    at_once: ClassVar[int] = 1

    def padded_depth(self, depth: int) -> int:
        """A whole number of rounds."""
        step = self.group * self.at_once
        return -(-depth // step) * step

    def multiply(self, e: Emitter, state: Any, block: Block, sink: Sink) -> None:
        """See `Engine.multiply`."""
        del state
        padded = -(-block.rows // self.row_multiple) * self.row_multiple
        rows = [e.add(block.row, e.index(i)) for i in range(padded)]
        sums: Sequence[Value] = self._start(e, padded)
        if block.group_at is None:
            walked, sums = self._fetching(e, block, rows, sums)
            with e.loop(walked, block.groups, self.at_once, carried=sums) as loop:
                loop.carry(self._step(e, block, rows, loop.index, self.at_once, loop.values))
        else:
            with e.loop(0, block.groups, block.run, carried=sums) as loop:
                loop.carry(self._run(e, block, rows, loop.index, loop.values))
        sums = loop.results
        for row, found in zip(rows[: block.rows], self._by_row(e, sums, padded), strict=False):
            sink(row, found)

    def _fetching(
        self, e: Emitter, block: Block, rows: Sequence[Value], sums: Sequence[Value]
    ) -> tuple[int, Sequence[Value]]:
        """As many groups as go with asking for whole lines `Ahead`, and the sums after them."""
        ahead = block.ahead
        if ahead is None or not isinstance(block.groups, int):
            return 0, sums
        stride = ahead.every * self.at_once
        lines = block.groups // stride
        line = LINE // bytes_of(block.weights.element)
        with e.loop(0, lines, carried=sums) as loop:
            group = e.mul(loop.index, e.index(stride))
            following = loop.values
            for n in range(0, stride, self.at_once):
                here = e.add(group, e.index(n)) if n else group
                following = self._step(e, block, rows, here, self.at_once, following)
            at = e.add(ahead.first, e.mul(loop.index, e.index(line)))
            e.prefetch(block.weights, [ahead.panel, at])
            loop.carry(following)
        return lines * stride, loop.results

    def _run(
        self, e: Emitter, block: Block, rows: Sequence[Value], group: Value, sums: Sequence[Value]
    ) -> list[Value]:
        """The sums after one run of groups that stand together somewhere in the activations."""
        assert block.group_at is not None
        place = block.group_at(group)
        at_once = math.gcd(block.run, self.at_once)
        following = list(sums)
        for n in range(0, block.run, at_once):
            here = e.add(place, e.index(n)) if n else place
            part = replace(block, group_at=partial(_given, here))
            following = self._step(e, part, rows, e.add(group, e.index(n)), at_once, following)
        return following

    def _start(self, e: Emitter, rows: int) -> list[Value]:
        """The sums at the beginning."""
        element = "i32" if self.precision == "int8" else "f32"
        return [e.number(0, vector(self.lanes, element))] * (rows * self.tiles)

    def _by_row(self, e: Emitter, sums: Sequence[Value], rows: int) -> list[Sequence[Value]]:
        """For each row its vectors of ``lanes`` outputs."""
        del e
        return [sums[i * self.tiles : (i + 1) * self.tiles] for i in range(rows)]

    def _depth(self, e: Emitter, block: Block, group: Value) -> Value:
        """Where a group of weights has its activations in a row."""
        place = block.group_at(group) if block.group_at else group
        return e.mul(place, e.index(self.group))

    def _weights(self, e: Emitter, block: Block, group: Value, part: int, width: int) -> Value:
        """``width`` packed weights: ``part`` of those that begin with the group."""
        group = e.add(block.first, group) if block.first is not None else group
        start = e.mul(group, e.index(self.group * self.panel))
        at = e.add(start, e.index(width * part))
        return e.load_vector(block.weights, [block.panel, at], width)

    @abstractmethod
    def _step(
        self,
        e: Emitter,
        block: Block,
        rows: Sequence[Value],
        group: Value,
        groups: int,
        sums: Sequence[Value],
    ) -> list[Value]:
        """The sums after ``groups`` more depth groups, ``group`` being the first."""


def _given(place: Value, group: Value) -> Value:
    del group
    return place
