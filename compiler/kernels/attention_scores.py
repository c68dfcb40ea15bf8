"""Scores of a block of queries against packed keys: q k^T * scale + bias, -inf where forbidden.

They go to scratch panel by panel, scaled and biased while they leave the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .attention_context import Context, Item
from .attention_pack import load_row
from .attention_softmax import Scores
from .emitter import Buffer, Value, vector

__all__ = ["Scorer"]

_FORBIDDEN = float("-inf")


@dataclass(frozen=True)
class Scorer:
    """``queries``: scratch for an item's rows of q; ``keys``: the packed keys."""

    context: Context
    queries: Buffer
    keys: Buffer
    scores: Scores

    def score(self, batch: Value, item: Item, first: Value, keys: int) -> None:
        """Fill the scores: ``keys`` packed keys, the sequence's from ``first`` on, and -inf."""
        c = self.context
        e, panel = c.e, c.plan.scores.panel
        self._copy_queries(batch, item)
        whole = keys // panel
        if whole:
            with e.loop(0, whole) as panels:
                self._panel(batch, item, first, panels.index, panel)
        if keys % panel:
            self._panel(batch, item, first, e.index(whole), keys % panel)
        for start in range(-(-keys // panel) * panel, c.room(keys), c.lanes):
            forbidden = e.number(_FORBIDDEN, vector(c.lanes, "f32"))
            with e.loop(0, c.plan.rows) as rows:
                self.scores.store(e, forbidden, rows.index, e.index(start))

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

    def _panel(self, batch: Value, item: Item, first: Value, panel: Value, columns: int) -> None:
        """One panel of keys, of which the first ``columns`` exist."""
        c = self.context
        e, engine = c.e, c.plan.scores
        start = e.mul(panel, e.index(engine.panel))
        key = e.add(first, start)
        bias = self._bias(batch, item, key, columns)

        def finish(row: Value, sums: Sequence[Value]) -> None:
            found = bias(row)
            query = e.add(item.query, row)
            for i, total in enumerate(sums):
                at = i * c.lanes
                value = self._finished(total, found[i], query, e.add(key, e.index(at)))
                value = self._existing(value, columns - at)
                self.scores.store(e, value, row, e.add(start, e.index(at)))

        groups = engine.padded_depth(c.shape.head_dim) // engine.group
        c.multiply(engine, self.queries, self.keys, panel, groups, finish)

    def _bias(
        self, batch: Value, item: Item, key: Value, columns: int
    ) -> Callable[[Value], list[Value | None]]:
        """Gives the bias of a row of a panel; loaded once where all queries share it."""
        c = self.context
        e, buffer, tiles = c.e, c.buffers.get("bias"), c.plan.scores.tiles
        if buffer is None:
            return lambda _: [None] * tiles

        def load(query: int | Value) -> list[Value | None]:
            places = (batch, item.head, query)
            at = [0 if n == 1 else p for n, p in zip(buffer.shape, places, strict=False)]
            found: list[Value | None] = []
            for start in range(0, tiles * c.lanes, c.lanes):
                count = min(c.lanes, columns - start)
                if count <= 0:
                    found.append(None)
                    continue
                part = e.load_vector(buffer, [*at, e.add(key, e.index(start))], count)
                if count < c.lanes:
                    part = e.shuffle(part, part, [min(i, count - 1) for i in range(c.lanes)])
                found.append(part)
            return found

        if buffer.shape[2] == 1:
            shared = load(0)
            return lambda _: shared
        return lambda row: load(e.add(item.query, row))

    def _finished(self, total: Value, bias: Value | None, query: Value, key: Value) -> Value:
        """Scale, bias and the causal mask."""
        e, lanes, form = self.context.e, self.context.lanes, self.context.form
        scale = e.number(form.scale, total.type)
        value = e.mul(total, scale) if bias is None else e.fma(total, scale, bias)
        if not form.causal:
            return value
        places = e.dense(range(lanes), "i32")
        ahead = e.cast_index(e.sub(query, key), "i32")
        seen = e.compare("sle", places, e.broadcast(ahead, lanes))
        return e.select(seen, value, e.number(_FORBIDDEN, value.type))

    def _existing(self, value: Value, count: int) -> Value:
        """-inf from lane ``count`` on."""
        e, lanes = self.context.e, self.context.lanes
        if count >= lanes:
            return value
        forbidden = e.number(_FORBIDDEN, value.type)
        return e.shuffle(value, forbidden, [i if i < count else i + lanes for i in range(lanes)])
