"""Products of a few rows by stored codes: what is read of a weight is its codes, once.

One row is bound by memory: 4 bits a weight are an eighth of what f32 reads. Each vector of words
gives codes of some neighbours along the depth, each meets that value of every row. Codes of 4
bits are summed within a group before they are scaled; those of 8 bits over the whole depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .emitter import Emitter
from .engines.base import Block, Engine, Sink
from .values import Buffer, Value, vector
from .weight_codes import codes_of, load_scales
from .weight_format import GROUP, WeightFormat

__all__ = [
    "MOST_ROWS",
    "StoredBlock",
    "WeightRows",
    "rows_by_label",
    "rows_engine",
    "rows_engines",
]

MOST_ROWS = 4
"""With more rows, dequantising once for all of them is faster."""


@dataclass(frozen=True, kw_only=True)
class StoredBlock(Block):
    """``weights`` are words, ``groups`` is the depth; with their ``scales``."""

    scales: Buffer
    form: WeightFormat


@dataclass(frozen=True)
class WeightRows(Engine):
    """All rows at once by ``tiles`` tiles of outputs; f32 throughout."""

    block_rows: int = 1
    tiles: int = 4
    precision: ClassVar[str] = "f32"
    group: ClassVar[int] = 1

    def multiply(self, e: Emitter, state: Any, block: Block, sink: Sink) -> None:
        """See `Engine.multiply`."""
        del state
        assert isinstance(block, StoredBlock)
        assert isinstance(block.groups, int)
        walk = _Walk(self, e, block)
        totals = walk.zeros()
        whole, rest = divmod(block.groups, GROUP)
        if whole:
            with e.loop(0, whole, carried=totals) as loop:
                loop.carry(walk.group(loop.index, loop.values))
            totals = loop.results
        if rest:
            totals = walk.rest(e.index(whole), rest, totals)
        totals = walk.scaled(e.index(0), totals) if block.form.bits == 8 else totals
        for i, row in enumerate(walk.rows):
            sink(row, totals[i * self.tiles : (i + 1) * self.tiles])


@dataclass(frozen=True)
class Rows16(WeightRows):
    """AVX-512."""

    name: ClassVar[str] = "avx512_rows"
    features: ClassVar[tuple[str, ...]] = ("avx512f",)
    blocks: ClassVar[Mapping[int, int]] = {4: 2, 2: 4}
    lanes: ClassVar[int] = 16


@dataclass(frozen=True)
class Rows8(WeightRows):
    """AVX2: half as many registers."""

    name: ClassVar[str] = "avx2_rows"
    features: ClassVar[tuple[str, ...]] = ("avx2", "fma")
    blocks: ClassVar[Mapping[int, int]] = {2: 2, 1: 4}
    lanes: ClassVar[int] = 8


@dataclass(frozen=True)
class Rows4(WeightRows):
    """NEON."""

    name: ClassVar[str] = "neon_rows"
    features: ClassVar[tuple[str, ...]] = ("dotprod",)
    blocks: ClassVar[Mapping[int, int]] = {4: 2, 2: 4}
    lanes: ClassVar[int] = 4


_ENGINES = (Rows16, Rows8, Rows4)


def rows_engine(features: Iterable[str], rows: int) -> WeightRows | None:
    """The engine for so few ``rows``; None where there are too many, or for another core."""
    return max(rows_engines(features, rows), key=lambda engine: engine.tiles, default=None)


def rows_engines(features: Iterable[str], rows: int) -> list[WeightRows]:
    """Every block that has room for ``rows``; none where they are too many."""
    present = frozenset(features)
    kinds = [kind for kind in _ENGINES if present.issuperset(kind.features)][:1]
    return [
        kind(rows, tiles) for kind in kinds for tiles, most in kind.blocks.items() if rows <= most
    ]


def rows_by_label(label: str) -> WeightRows | None:
    """The engine whose `Engine.label` this is; None if there is none."""
    known = (
        kind(rows, tiles)
        for kind in _ENGINES
        for tiles, most in kind.blocks.items()
        for rows in range(1, most + 1)
    )
    return next((engine for engine in known if engine.label == label), None)


class _Walk:
    """Along the depth of one panel."""

    def __init__(self, engine: WeightRows, e: Emitter, block: StoredBlock) -> None:
        self._e, self._block, self._form = e, block, block.form
        self._tiles = engine.tiles
        self.rows = [e.add(block.row, e.index(i)) for i in range(block.rows)]
        last = block.weights.shape[0] - 1
        first = e.mul(block.panel, e.index(engine.tiles))
        self._at = [e.least(e.add(first, e.index(j)), last) for j in range(engine.tiles)]

    def zeros(self) -> list[Value]:
        """Sums at the beginning."""
        zero = self._e.number(0, vector(self._form.lanes, "f32"))
        return [zero] * (len(self.rows) * self._tiles)

    def group(self, group: Value, totals: Sequence[Value]) -> list[Value]:
        """The totals after one whole group."""
        e, per_word = self._e, self._form.per_word
        words = GROUP // per_word
        first = e.mul(group, e.index(words))
        start = list(totals) if self._form.bits == 8 else self.zeros()
        with e.loop(first, e.add(first, e.index(words)), carried=start) as loop:
            loop.carry(self._word(loop.index, per_word, loop.values))
        if self._form.bits == 8:
            return loop.results
        return self.scaled(group, loop.results, totals)

    def rest(self, group: Value, depth: int, totals: Sequence[Value]) -> list[Value]:
        """The totals after the last group, of which ``depth`` are there."""
        e, per_word = self._e, self._form.per_word
        first = e.mul(group, e.index(GROUP // per_word))
        sums = list(totals) if self._form.bits == 8 else self.zeros()
        for word, start in enumerate(range(0, depth, per_word)):
            at = e.add(first, e.index(word))
            sums = self._word(at, min(per_word, depth - start), sums)
        return sums if self._form.bits == 8 else self.scaled(group, sums, totals)

    def _word(self, word: Value, count: int, sums: Sequence[Value]) -> list[Value]:
        """The sums after ``count`` codes of one word of each tile."""
        e, form = self._e, self._form
        at = e.mul(word, e.index(form.lanes))
        codes = [
            codes_of(e, form, e.load_vector(self._block.weights, [tile, at], form.lanes), count)
            for tile in self._at
        ]
        depth = e.mul(word, e.index(form.per_word))
        following = list(sums)
        for n in range(count):
            place = e.add(depth, e.index(n)) if n else depth
            for i, row in enumerate(self.rows):
                one = e.broadcast(e.load(self._block.activations, [row, place]), form.lanes)
                for j in range(self._tiles):
                    total = i * self._tiles + j
                    following[total] = e.fma(one, codes[j][n], following[total])
        return following

    def scaled(
        self, group: Value, sums: Sequence[Value], totals: Sequence[Value] | None = None
    ) -> list[Value]:
        """Sums times the scales of their tile and group, and ``totals``."""
        e = self._e
        scales = [load_scales(e, self._form, self._block.scales, t, group) for t in self._at]
        found = []
        for at, total in enumerate(sums):
            scale = scales[at % self._tiles]
            found.append(
                e.mul(total, scale) if totals is None else e.fma(total, scale, totals[at])
            )
        return found
