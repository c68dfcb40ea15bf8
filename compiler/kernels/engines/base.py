"""What an engine is: one way for a core to multiply a block of rows by a panel of weights.

Activations stay row-major, ``[rows, row_stride]`` in the engine's element; weights are packed
once into panels of neighbouring outputs, so that the inner loop reads them in a straight line.
An engine multiplies a block of rows by a panel and hands the sums, row by row, to a *sink* that
finishes them (scales, bias, activation) while they are still in registers or in the first cache.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..emitter import Emitter
from ..values import Buffer, Value, vector

__all__ = ["LINE", "Ahead", "Block", "Engine", "Sink", "words_of"]

LINE = 64
"""Bytes of a cache line."""

# Gets the row and one vector of sums (i32 or f32) for each group of ``lanes`` outputs.
Sink = Callable[[Value, Sequence[Value]], None]


@dataclass(frozen=True)
class Ahead:
    """A line of weights to ask for every ``every`` rounds of the inner loop, from element
    ``first`` of ``panel`` on; what is beyond the last panel is asked for in vain."""

    panel: Value
    first: Value
    every: int


@dataclass(frozen=True)
class Block:
    """What one call multiplies: rows ``row`` to ``row + rows`` by panel ``panel``.

    ``groups`` is the number of depth groups in the panel (all of them, or the surviving ones);
    ``group_at`` maps the n-th of them to its place in the activations (None: the same), where
    ``run`` groups stand together: it is asked for the first of each run. The panel's weights
    begin with depth group ``first`` of row ``panel``. ``ahead`` are lines for a later panel.
    """

    activations: Buffer
    weights: Buffer
    row: Value
    rows: int
    panel: Value
    groups: int | Value
    group_at: Callable[[Value], Value] | None = None
    run: int = 1
    first: Value | None = None
    ahead: Ahead | None = None


@dataclass(frozen=True)
class Engine(ABC):
    """``tiles`` vectors of ``lanes`` outputs make a panel; ``block_rows`` rows go at once."""

    block_rows: int
    tiles: int

    name: ClassVar[str]
    precision: ClassVar[str]
    features: ClassVar[tuple[str, ...]]
    """LLVM's names of what the core must have."""

    blocks: ClassVar[Mapping[int, int]]
    """How many rows at most go with each number of tiles that the registers have room for."""

    lanes: ClassVar[int]
    """Outputs in one vector of sums."""

    group: ClassVar[int]
    """Neighbours along the depth that are multiplied together in one lane."""

    groups_per_step: ClassVar[int] = 1
    """Depth groups that one round of the inner loop takes."""

    row_multiple: ClassVar[int] = 1
    """Activations are padded to so many rows (their contents there do not matter)."""

    fewest_rows: ClassVar[int] = 32
    """So many rows at least should meet weights that come from the second cache; fewer only where
    that was measured to be as fast."""

    narrow_rows: ClassVar[int] = 64
    """How many rows at most meet sparse weights in panels of one vector."""

    signed: ClassVar[bool] = False
    """Whether int8 activations are read as signed."""

    fetches_ahead: ClassVar[bool] = False
    """Whether a panel's weights are asked for while the one before is multiplied."""

    @classmethod
    def for_blocks(cls, tiles: int, rows: int) -> Self:
        """For ``rows`` and sparse weights in panels of ``tiles`` vectors."""
        most = cls.blocks[tiles]
        return cls(min(most, rows, cls.narrow_rows if tiles == 1 else most), tiles)

    def holds(self, depth: int) -> bool:
        """Whether a sum of so many products fits in its 32 bits, whatever the codes are."""
        if self.precision != "int8":
            return True
        return depth * (128 if self.signed else 255) * 127 < 2**31

    @property
    def panel(self) -> int:
        """Outputs of one panel."""
        return self.lanes * self.tiles

    @property
    def element(self) -> str:
        """The element of activations and weights in memory, as MLIR spells it."""
        return {"int8": "i8", "bf16": "i16", "f32": "f32"}[self.precision]

    @property
    def label(self) -> str:
        """The engine and its block, as part of a kernel's name."""
        return f"{self.name}_{self.block_rows}x{self.panel}"

    @property
    def packing(self) -> str:
        """The `label` of an engine that packs weights alike: their form does not know the rows."""
        return f"{self.name}_1x{self.panel}"

    def padded_depth(self, depth: int) -> int:
        """The depth that weights are packed for; zeros fill it up."""
        step = self.group * self.groups_per_step
        return math.ceil(depth / step) * step

    def row_stride(self, depth: int) -> int:
        """Elements from one row of activations to the next."""
        return self.padded_depth(depth)

    def padded_rows(self, rows: int) -> int:
        """Rows of the activations' buffer."""
        return math.ceil(rows / self.row_multiple) * self.row_multiple

    def panels(self, outputs: int) -> int:
        """Panels of a weight, the last one perhaps not full."""
        return math.ceil(outputs / self.panel)

    def packed_shape(self, outputs: int, depth: int) -> tuple[int, int]:
        """(panels, elements of one panel)."""
        return self.panels(outputs), self.padded_depth(depth) * self.panel

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """[outputs, depth] into `packed_shape`, padded with zeros."""
        outputs, depth = weight.shape
        panels, padded = self.panels(outputs), self.padded_depth(depth)
        full = np.zeros((panels * self.panel, padded), weight.dtype)
        full[:outputs, :depth] = weight
        steps = padded // (self.group * self.groups_per_step)
        split = full.reshape(
            panels, self.tiles, self.lanes, steps, self.groups_per_step, self.group
        )
        ordered = split.transpose(0, 3, 1, 4, 2, 5)
        return np.ascontiguousarray(ordered).reshape(panels, padded * self.panel)

    def prepare(self, e: Emitter) -> Any:
        """What a work-group sets up once; `multiply` gets it back."""
        del e

    def finish(self, e: Emitter) -> None:
        """What a work-group undoes at its end."""
        del e

    @abstractmethod
    def multiply(self, e: Emitter, state: Any, block: Block, sink: Sink) -> None:
        """Emit one block: sums over the whole depth, then ``sink`` for each row."""

    def multiply_into(
        self, e: Emitter, state: Any, block: Block, sums: Buffer, column: Value
    ) -> None:
        """Emit one block whose sums are kept as they are: in ``sums``, from ``column`` on.

        ``sums``: [`padded_rows`, columns], whose element may be narrower than a sum: the columns
        then are as many as the sums' bytes need, while ``column`` counts sums.
        """
        share = words_of(sums.element)
        type_ = vector(self.lanes * share, sums.element)

        def store(row: Value, found: Sequence[Value]) -> None:
            for i, total in enumerate(found):
                at = e.mul(e.add(column, e.index(i * self.lanes)), e.index(share))
                value = e.bitcast(total, type_) if total.type != type_ else total
                e.store_vector(value, sums, [row, at])

        self.multiply(e, state, block, store)


def words_of(element: str) -> int:
    """Elements that have the size of one sum."""
    return {"f32": 1, "i32": 1, "i16": 2, "i8": 4}[element]
