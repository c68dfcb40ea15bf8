"""One work-group's part of an attention: what is done with an item, a block of one head's queries.

The last block of a head begins early enough to be whole, so that some queries may be done twice,
with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .attention_pack import Part, load_row, pack_keys, pack_values
from .attention_plan import Plan
from .attention_shape import AttentionShape, Sources, View
from .attention_softmax import LOWEST, Running, Scores, inverse, native_bf16, soften
from .convert import round_bf16
from .emitter import Buffer, Emitter, Value, vector
from .engines.base import Block, Sink

__all__ = ["Work"]


@dataclass(frozen=True)
class _Item:
    """Which head and which queries, from query ``query`` of the sequence on."""

    head: Value
    query: Value


class Work:
    """The scratch of a work-group, and the steps on it."""

    def __init__(
        self,
        e: Emitter,
        plan: Plan,
        shape: AttentionShape,
        sources: Sources,
        scale: float,
        causal: bool,
        buffers: dict[str, Buffer],
        state: Any,
        group: Value,
    ) -> None:
        self._e, self._plan, self._shape, self._sources = e, plan, shape, sources
        self._scale, self._causal = scale, causal
        self._buffers, self._state = buffers, state
        self._native = native_bf16(plan.scores)
        element = plan.scores.element
        rows = plan.scores.padded_rows(plan.rows)
        depth = plan.scores.row_stride(shape.head_dim)
        self._queries = e.scratch((rows, depth), element)
        self._keys = e.scratch(plan.scores.packed_shape(plan.chunk, shape.head_dim), element)
        self._values = e.scratch(plan.values.packed_shape(shape.value_dim, plan.chunk), element)
        self._scores = Scores.scratch(e, plan.scores, rows, plan.chunk)
        self._lanes = plan.scores.lanes
        self._factors = e.scratch((plan.rows, self._lanes), "f32")
        if plan.items:
            waiting = plan.items * plan.rows
            self._sums = e.scratch((waiting, self._vectors * self._lanes), "f32")
            self._maxima = e.scratch((waiting,), "f32")
            self._totals = e.scratch((waiting,), "f32")
        groups = e.index(shape.heads // plan.heads_per_group)
        self._batch = e.div(group, groups)
        self._first_head = e.mul(e.remainder(group, groups), e.index(plan.heads_per_group))

    @property
    def _vectors(self) -> int:
        """Vectors of a row of sums, the last one perhaps not full."""
        return -(-self._shape.value_dim // self._lanes)

    # -- keys and values --------------------------------------------------------------------

    def pack(self, first: Value, keys: int) -> None:
        """Pack ``keys`` keys from ``first`` on of the head that the work-group reads."""
        e, plan, shape = self._e, self._plan, self._shape
        head = e.div(self._first_head, e.index(shape.sharing))
        row = e.add(e.mul(self._batch, e.index(shape.keys)), first)
        part = self._part(self._sources.key, row, head, shape.head_dim)
        pack_keys(e, plan.scores, part, self._keys, keys, self._room(keys))
        part = self._part(self._sources.value, row, head, shape.value_dim)
        pack_values(e, plan.values, part, self._values, keys, self._room(keys))

    def _part(self, view: View, row: Value, head: Value, width: int) -> Part:
        e = self._e
        column = e.add(e.index(view.column), e.mul(head, e.index(width)))
        return Part(self._buffers[f"matrix{view.matrix}"], row, column, width, self._native)

    def _room(self, keys: int) -> int:
        """``keys`` and the padding that both products need."""
        scores, values = self._plan.scores, self._plan.values
        found = keys
        while found % scores.panel or values.padded_depth(found) != found:
            found += 1
        return found

    # -- items --------------------------------------------------------------------------------

    def at_once(self, number: Value) -> None:
        """An item against all keys."""
        keys = self._shape.keys
        item = self._item(number)
        self._score(item, self._e.index(0), keys)
        soften(self._e, self._scores, self._plan.rows, self._room(keys), self._factors, None)
        self._multiply_values(keys, lambda row, i, total: self._write(item, row, i, total))

    def forget(self, count: Value) -> None:
        """Nothing seen yet by ``count`` waiting items."""
        e = self._e
        zero = e.number(0.0, vector(self._lanes, "f32"))
        with e.loop(0, e.mul(count, e.index(self._plan.rows))) as rows:
            e.store(e.number(LOWEST, "f32"), self._maxima, [rows.index])
            e.store(e.number(0.0, "f32"), self._totals, [rows.index])
            for i in range(self._vectors):
                e.store_vector(zero, self._sums, [rows.index, i * self._lanes])

    def in_part(self, number: Value, slot: Value, first: Value, keys: int) -> None:
        """An item that waits in ``slot`` against the chunk of keys from ``first`` on."""
        e, rows = self._e, self._plan.rows
        start = e.mul(slot, e.index(rows))
        self._score(self._item(number), first, keys)
        running = Running(self._maxima, self._totals, start)
        soften(e, self._scores, rows, self._room(keys), self._factors, running)

        def add(row: Value, i: int, total: Value) -> None:
            at: list[int | Value] = [e.add(start, row), i * self._lanes]
            past = e.load_vector(self._sums, at, self._lanes)
            factor = e.load_vector(self._factors, [row, 0], self._lanes)
            e.store_vector(e.fma(past, factor, total), self._sums, at)

        self._multiply_values(keys, add)

    def write(self, number: Value, slot: Value) -> None:
        """The item in ``slot`` has seen all keys."""
        e = self._e
        item = self._item(number)
        start = e.mul(slot, e.index(self._plan.rows))
        with e.loop(0, self._plan.rows) as rows:
            at = e.add(start, rows.index)
            factor = inverse(e, e.broadcast(e.load(self._totals, [at]), self._lanes))
            e.store_vector(factor, self._factors, [rows.index, 0])
            for i in range(self._vectors):
                total = e.load_vector(self._sums, [at, i * self._lanes], self._lanes)
                self._write(item, rows.index, i, total)

    def _item(self, number: Value) -> _Item:
        e, plan, shape = self._e, self._plan, self._shape
        blocks = e.index(-(-shape.queries // plan.rows))
        head = e.add(self._first_head, e.div(number, blocks))
        query = e.mul(e.remainder(number, blocks), e.index(plan.rows))
        return _Item(head, e.least(query, shape.queries - plan.rows))

    # -- products -------------------------------------------------------------------------------

    def _score(self, item: _Item, first: Value, keys: int) -> None:
        """Scaled, biased scores of the item against ``keys`` packed keys, -inf beyond them."""
        e, plan, shape = self._e, self._plan, self._shape
        row = e.add(e.mul(self._batch, e.index(shape.queries)), item.query)
        part = self._part(self._sources.query, row, item.head, shape.head_dim)
        depth = self._queries.shape[1]
        width = self._lanes * plan.scores.group
        with e.loop(0, plan.rows) as rows:
            for start in range(0, depth, width):
                size = min(width, depth - start)
                count = max(0, min(size, shape.head_dim - start))
                found = e.number(0, vector(size, self._queries.element))
                if count:
                    element = self._queries.element
                    found = load_row(e, part, rows.index, start, count, size, element)
                e.store_vector(found, self._queries, [rows.index, start])
        panel = plan.scores.panel
        whole = keys // panel
        if whole:
            with e.loop(0, whole) as panels:
                self._score_panel(item, first, panels.index, panel)
        if keys % panel:
            self._score_panel(item, first, e.index(whole), keys % panel)
        for start in range(-(-keys // panel) * panel, self._room(keys), self._lanes):
            forbidden = e.number(float("-inf"), vector(self._lanes, "f32"))
            with e.loop(0, plan.rows) as rows:
                self._scores.store(e, forbidden, rows.index, e.index(start))

    def _score_panel(self, item: _Item, first: Value, panel: Value, columns: int) -> None:
        e, plan = self._e, self._plan
        start = e.mul(panel, e.index(plan.scores.panel))
        key = e.add(first, start)
        bias = self._bias(item, key, columns)

        def finish(row: Value, sums: Sequence[Value]) -> None:
            found = bias(row)
            query = e.add(item.query, row)
            for i, total in enumerate(sums):
                at = i * self._lanes
                value = self._finished(total, found[i], query, e.add(key, e.index(at)))
                value = self._existing(value, columns - at)
                self._scores.store(e, value, row, e.add(start, e.index(at)))

        groups = plan.scores.padded_depth(self._shape.head_dim) // plan.scores.group
        self._multiply(plan.scores, self._queries, self._keys, panel, groups, finish)

    def _bias(
        self, item: _Item, key: Value, columns: int
    ) -> Callable[[Value], list[Value | None]]:
        """Gives the bias of a row of a panel; loaded once where all queries share it."""
        e = self._e
        tiles = self._plan.scores.tiles
        buffer = self._buffers.get("bias")
        if buffer is None:
            return lambda _: [None] * tiles

        def load(query: int | Value) -> list[Value | None]:
            places = (self._batch, item.head, query)
            at = [e.index(0) if n == 1 else p for n, p in zip(buffer.shape, places, strict=False)]
            found: list[Value | None] = []
            for start in range(0, tiles * self._lanes, self._lanes):
                count = min(self._lanes, columns - start)
                if count <= 0:
                    found.append(None)
                    continue
                part = e.load_vector(buffer, [*at, e.add(key, e.index(start))], count)
                if count < self._lanes:
                    lanes = [min(lane, count - 1) for lane in range(self._lanes)]
                    part = e.shuffle(part, part, lanes)
                found.append(part)
            return found

        if buffer.shape[2] == 1:
            shared = load(0)
            return lambda _: shared
        return lambda row: load(e.add(item.query, row))

    def _finished(self, total: Value, bias: Value | None, query: Value, key: Value) -> Value:
        """Scale, bias and the causal mask."""
        e = self._e
        scale = e.number(self._scale, total.type)
        value = e.mul(total, scale) if bias is None else e.fma(total, scale, bias)
        if not self._causal:
            return value
        places = e.dense(range(self._lanes), "i32")
        ahead = e.cast_index(e.sub(query, key), "i32")
        seen = e.compare("sle", places, e.broadcast(ahead, self._lanes))
        return e.select(seen, value, e.number(float("-inf"), value.type))

    def _existing(self, value: Value, count: int) -> Value:
        """-inf from lane ``count`` on."""
        e = self._e
        if count >= self._lanes:
            return value
        forbidden = e.number(float("-inf"), value.type)
        lanes = [lane if lane < count else lane + self._lanes for lane in range(self._lanes)]
        return e.shuffle(value, forbidden, lanes)

    def _multiply_values(self, keys: int, sink: Callable[[Value, int, Value], None]) -> None:
        """Probabilities by v; ``sink`` gets row, number and vector of what exists."""
        e, values = self._e, self._plan.values
        for panel in range(values.panels(self._shape.value_dim)):
            first = panel * values.tiles

            def finish(row: Value, sums: Sequence[Value], first: int = first) -> None:
                for i, total in enumerate(sums[: self._vectors - first]):
                    sink(row, first + i, total)

            groups = self._room(keys) // values.group
            self._multiply(
                values, self._scores.buffer, self._values, e.index(panel), groups, finish
            )

    def _multiply(
        self, engine: Any, rows: Buffer, weights: Buffer, panel: Value, groups: int, sink: Sink
    ) -> None:
        block = Block(rows, weights, self._e.index(0), self._plan.rows, panel, groups)
        engine.multiply(self._e, self._state, block, sink)

    def _write(self, item: _Item, row: Value, number: int, total: Value) -> None:
        """Vector ``number`` of a row of sums, normalised, to the result."""
        e, shape = self._e, self._shape
        result = self._buffers["result"]
        start = number * self._lanes
        width = min(self._lanes, shape.value_dim - start)
        value = e.mul(total, e.load_vector(self._factors, [row, 0], self._lanes))
        if width < self._lanes:
            value = e.shuffle(value, value, range(width))
        if result.element == "i16":
            value = round_bf16(e, value, native=self._native)
        token = e.add(e.mul(self._batch, e.index(shape.queries)), item.query)
        column = e.add(e.mul(item.head, e.index(shape.value_dim)), e.index(start))
        e.store_vector(value, result, [e.add(token, row), column])
