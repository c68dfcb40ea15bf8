"""Scores of a block of queries against packed keys: q k^T * scale + bias, -inf where forbidden.

The products go to scratch panel by panel as the engine leaves them. Scale, bias and mask come with
the softmax, which has each of them in a register anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .attention_context import Context, Item
from .attention_pack import load_row
from .attention_softmax import Finish, Scores
from .engines.base import Block
from .values import Buffer, Value, vector

__all__ = ["Scorer"]

_FORBIDDEN = float("-inf")


@dataclass(frozen=True)
class Scorer:
    """``queries``: scratch for an item's rows of q; ``keys``: the packed keys."""

    context: Context
    queries: Buffer
    keys: Buffer
    scores: Scores

    def score(self, batch: Value, item: Item, keys: int) -> None:
        """Products with ``keys`` packed keys, as the engine leaves them."""
        c = self.context
        e, engine = c.e, c.plan.scores
        self._copy_queries(batch, item)
        groups = engine.padded_depth(c.shape.head_dim) // engine.group
        with e.loop(0, engine.panels(keys)) as loop:
            panel = loop.index
            block = Block(self.queries, self.keys, e.index(0), c.plan.rows, panel, groups)
            column = e.mul(panel, e.index(engine.panel))
            engine.multiply_into(e, c.state, block, self.scores.buffer, column)

    def _copy_queries(self, batch: Value, item: Item) -> None:
        """The item's rows of q as the engine's activations, padded with zeros."""
        c = self.context
        e, shape, element = c.e, c.shape, self.queries.element
        row = e.add(e.mul(batch, e.index(shape.queries)), item.query)
        part = c.part(c.sources.query, row, item.head, shape.head_dim)
        depth, width = self.queries.shape[1], c.lanes * c.plan.scores.group
        with e.loop(0, c.plan.rows) as rows:
            for start in range(0, depth, width):
                size = min(width, depth - start)
                count = max(0, min(size, shape.head_dim - start))
                found = e.number(0, vector(size, element))
                if count:
                    found = load_row(e, part, rows.index, start, count, size, element)
                e.store_vector(found, self.queries, [rows.index, start])

    def finisher(self, batch: Value, item: Item, first: Value, keys: int) -> Finish:
        """Scale, bias and mask of an item and ``keys`` keys, the sequence's from ``first`` on."""
        e, lanes = self.context.e, self.context.lanes
        bias = self._bias(batch, item, first, keys)

        def finish(row: Value, sums: Value, key: Value, count: int) -> Value:
            query = e.add(item.query, row)
            value = self._finished(sums, bias(query, key, count), query, first, key)
            return self._existing(value, count) if count < lanes else value

        return finish

    def _bias(
        self, batch: Value, item: Item, first: Value, keys: int
    ) -> Callable[[Value, Value, int], Value | None]:
        """Gives the bias of a query and some keys; those at the end are loaded once where all
        queries share them."""
        c = self.context
        e, buffer, lanes = c.e, c.buffers.get("bias"), c.lanes
        if buffer is None:
            return lambda *_: None

        def load(query: int | Value, key: Value, count: int) -> Value:
            places = (batch, item.head, query)
            at = [0 if n == 1 else p for n, p in zip(buffer.shape, places, strict=False)]
            part = e.load_vector(buffer, [*at, e.add(first, key)], count)
            if count < lanes:
                part = e.shuffle(part, part, [min(i, count - 1) for i in range(lanes)])
            return part

        if buffer.shape[2] > 1 or keys % lanes == 0:
            return load
        last = load(0, e.index(keys // lanes * lanes), keys % lanes)
        return lambda _, key, count: load(0, key, count) if count == lanes else last

    def _finished(
        self, total: Value, bias: Value | None, query: Value, first: Value, key: Value
    ) -> Value:
        """Scale, bias and the causal mask."""
        e, lanes, form = self.context.e, self.context.lanes, self.context.form
        scale = e.number(form.scale, total.type)
        value = e.mul(total, scale) if bias is None else e.fma(total, scale, bias)
        if not form.causal:
            return value
        # What depends on the query is the same in all vectors of a row, and the keys in all rows.
        last = e.broadcast(e.cast_index(e.sub(query, first), "i32"), lanes)
        start = e.broadcast(e.cast_index(key, "i32"), lanes)
        keys = e.add(e.dense(range(lanes), "i32"), start)
        seen = e.compare("sle", keys, last)
        return e.select(seen, value, e.number(_FORBIDDEN, value.type))

    def _existing(self, value: Value, count: int) -> Value:
        """-inf from lane ``count`` on."""
        e, lanes = self.context.e, self.context.lanes
        forbidden = e.number(_FORBIDDEN, value.type)
        return e.shuffle(value, forbidden, [i if i < count else i + lanes for i in range(lanes)])
