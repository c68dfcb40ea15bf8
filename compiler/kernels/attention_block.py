"""One work-group's part of an attention: what is done with an item, a block of one head's queries.

The last block of a head begins early enough to be whole, so that some queries may be done twice,
with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .attention_context import Context, Item
from .attention_pack import pack_keys, pack_values
from .attention_rows import inverse
from .attention_scores import Scorer
from .attention_softmax import LOWEST, Running, Scores, Softmax
from .convert import round_bf16
from .values import Value, vector

__all__ = ["Work"]


class Work:
    """The scratch of a work-group, and the steps on it."""

    def __init__(self, context: Context) -> None:
        self._c = context
        self._e = e = context.e
        self._lanes = context.lanes
        plan, shape = context.plan, context.shape
        element = plan.scores.element
        rows = plan.scores.padded_rows(plan.rows)
        queries = e.scratch((rows, plan.scores.row_stride(shape.head_dim)), element)
        self._keys = e.scratch(plan.scores.packed_shape(plan.chunk, shape.head_dim), element)
        self._values = e.scratch(plan.values.packed_shape(shape.value_dim, plan.chunk), element)
        self._scores = Scores.scratch(e, plan.scores, rows, plan.chunk)
        self._scorer = Scorer(context, queries, self._keys, self._scores)
        self._softmax = Softmax(e, self._scores, plan.rows, native=context.native_bf16)
        if plan.items:
            waiting = plan.items * self._whole_rows
            self._sums = e.scratch((waiting, self._vectors * self._lanes), "f32")
            self._maxima = e.scratch((waiting,), "f32")
            self._totals = e.scratch((waiting,), "f32")
        groups = e.index(shape.heads // plan.heads_per_group)
        self._batch = e.div(context.group, groups)
        in_batch = e.remainder(context.group, groups)
        self._first_head = e.mul(in_batch, e.index(plan.heads_per_group))

    @property
    def _vectors(self) -> int:
        """Vectors of a row of sums, the last one perhaps not full."""
        return -(-self._c.shape.value_dim // self._lanes)

    @property
    def _whole_rows(self) -> int:
        """Rows that an item has room for while it waits: whole vectors of a number for each."""
        return -(-self._c.plan.rows // self._lanes) * self._lanes

    def pack(self, first: Value, keys: int) -> None:
        """Pack ``keys`` keys from ``first`` on of the head that the work-group reads."""
        c, e = self._c, self._e
        plan, shape, room = c.plan, c.shape, c.room(keys)
        head = e.div(self._first_head, e.index(shape.sharing))
        row = e.add(e.mul(self._batch, e.index(shape.keys)), first)
        part = c.part(c.sources.key, row, head, shape.head_dim)
        pack_keys(e, plan.scores, part, self._keys, keys, room)
        part = c.part(c.sources.value, row, head, shape.value_dim)
        pack_values(e, plan.values, part, self._values, keys, room)

    def at_once(self, number: Value) -> None:
        """An item against all keys."""
        c, e = self._c, self._e
        keys = c.shape.keys
        item = self._item(number)
        self._scorer.score(self._batch, item, keys)
        finish = self._scorer.finisher(self._batch, item, e.index(0), keys)
        self._softmax.soften(finish, keys, c.room(keys), None)
        self._multiply_values(keys, lambda row, i, total: self._write(item, row, i, total))

    def forget(self, count: Value) -> None:
        """Nothing seen yet by ``count`` waiting items."""
        e = self._e
        zero = e.number(0.0, vector(self._lanes, "f32"))
        with e.loop(0, e.mul(count, e.index(self._whole_rows))) as rows:
            e.store(e.number(LOWEST, "f32"), self._maxima, [rows.index])
            e.store(e.number(0.0, "f32"), self._totals, [rows.index])
            for i in range(self._vectors):
                e.store_vector(zero, self._sums, [rows.index, i * self._lanes])

    def in_part(self, number: Value, slot: Value, first: Value, keys: int) -> None:
        """An item that waits in ``slot`` against the chunk of keys from ``first`` on."""
        e, rows = self._e, self._c.plan.rows
        item = self._item(number)
        if not self._c.form.causal:
            self._add_chunk(item, slot, first, keys)
            return
        last = e.add(item.query, e.index(rows - 1))
        with e.loop(0, e.cast_bool(e.compare("ule", first, last))):
            self._add_chunk(item, slot, first, keys)

    def _add_chunk(self, item: Item, slot: Value, first: Value, keys: int) -> None:
        """What the item sees of the chunk, added to the sums that wait."""
        c, e = self._c, self._e
        start = e.mul(slot, e.index(self._whole_rows))
        self._scorer.score(self._batch, item, keys)
        finish = self._scorer.finisher(self._batch, item, first, keys)
        running = Running(self._maxima, self._totals, start)
        self._softmax.soften(finish, keys, c.room(keys), running)

        def add(row: Value, i: int, total: Value) -> None:
            at: list[int | Value] = [e.add(start, row), i * self._lanes]
            past = e.load_vector(self._sums, at, self._lanes)
            factor = self._factor(row)
            e.store_vector(e.fma(past, factor, total), self._sums, at)

        self._multiply_values(keys, add)

    def write(self, number: Value, slot: Value) -> None:
        """The item in ``slot`` has seen all keys."""
        e = self._e
        item = self._item(number)
        start = e.mul(slot, e.index(self._whole_rows))
        for first in range(0, self._whole_rows, self._lanes):
            totals = e.load_vector(self._totals, [e.add(start, e.index(first))], self._lanes)
            e.store_vector(inverse(e, totals), self._softmax.factors, [first])
        with e.loop(0, self._c.plan.rows) as rows:
            at = e.add(start, rows.index)
            for i in range(self._vectors):
                total = e.load_vector(self._sums, [at, i * self._lanes], self._lanes)
                self._write(item, rows.index, i, total)

    def _item(self, number: Value) -> Item:
        e, rows, queries = self._e, self._c.plan.rows, self._c.shape.queries
        blocks = e.index(-(-queries // rows))
        head = e.add(self._first_head, e.div(number, blocks))
        query = e.mul(e.remainder(number, blocks), e.index(rows))
        return Item(head, e.least(query, queries - rows))

    def _multiply_values(self, keys: int, sink: Callable[[Value, int, Value], None]) -> None:
        """Probabilities by v; ``sink`` gets row, number and vector of what exists."""
        c, values = self._c, self._c.plan.values
        groups = c.room(keys) // values.group
        for panel in range(values.panels(c.shape.value_dim)):
            first = panel * values.tiles

            def finish(row: Value, sums: Sequence[Value], first: int = first) -> None:
                for i, total in enumerate(sums[: self._vectors - first]):
                    sink(row, first + i, total)

            at = self._e.index(panel)
            c.multiply(values, self._scores.buffer, self._values, at, groups, finish)

    def _factor(self, row: Value) -> Value:
        """The factor of a row, in every lane."""
        return self._e.broadcast(self._e.load(self._softmax.factors, [row]), self._lanes)

    def _write(self, item: Item, row: Value, number: int, total: Value) -> None:
        """Vector ``number`` of a row of sums, normalised, to the result."""
        c, e = self._c, self._e
        result = c.buffers["result"]
        start = number * self._lanes
        width = min(self._lanes, c.shape.value_dim - start)
        value = e.mul(total, self._factor(row))
        if width < self._lanes:
            value = e.shuffle(value, value, range(width))
        if result.element == "i16":
            value = round_bf16(e, value, native=c.native_bf16)
        token = e.add(e.mul(self._batch, e.index(c.shape.queries)), item.query)
        column = e.add(e.mul(item.head, e.index(c.shape.value_dim)), e.index(start))
        e.store_vector(value, result, [e.add(token, row), column])
