"""A weight with zero blocks, stored without them.

A block is ``group_in`` neighbouring inputs by one panel of outputs. Those of a panel that have a
weight other than zero *survive*; they stand one behind another, panel after panel::

    weights  [stored blocks, elements of a block]    each as its engine reads it
    places   [stored blocks] i32                     inputs: place * group_in and the next ones
    starts   [panels + 1] i32                        panel p: blocks starts[p] to starts[p + 1]

Where an engine takes several blocks at once (``multiple``), blocks of zeros fill a panel up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines.base import Engine

__all__ = ["SparseLayout", "layout_for"]

Array = NDArray[Any]


@dataclass(frozen=True)
class SparseLayout:
    """How a weight [outputs, depth] is cut into blocks and ordered within a block.

    ``panel`` outputs are ``panel / lanes`` vectors or tiles; ``group`` neighbours along the
    depth are multiplied together in one lane. Each ``multiple`` blocks are one step, ordered
    [groups][outputs][group], or with ``by_output`` [tiles][outputs of a tile][groups][group].
    """

    outputs: int
    depth: int
    group_in: int
    panel: int
    lanes: int
    group: int
    multiple: int = 1
    by_output: bool = False

    @property
    def panels(self) -> int:
        """Panels of the weight, the last one perhaps not full."""
        return math.ceil(self.outputs / self.panel)

    @property
    def columns(self) -> int:
        """Blocks of one panel, zero ones included."""
        return math.ceil(self.depth / self.group_in)

    @property
    def padded_depth(self) -> int:
        """Inputs that whole blocks reach."""
        return self.columns * self.group_in

    @property
    def block_size(self) -> int:
        """Elements of one block."""
        return self.group_in * self.panel

    def survivors(self, weight: Array) -> NDArray[np.bool_]:
        """[panels, columns]: which blocks of ``weight`` have anything but zeros."""
        return np.asarray(self._blocks(weight != 0).any(axis=(1, 3)))

    def stored(self, survivors: NDArray[np.bool_]) -> int:
        """Blocks in memory, those that fill up included; at least one step."""
        return max(self.multiple, int(self._starts(survivors)[-1]))

    def index(self, survivors: NDArray[np.bool_]) -> tuple[Array, Array]:
        """(places, starts) of the module's docstring; a block that fills up has the place 0."""
        starts = self._starts(survivors)
        places = np.zeros(self.stored(survivors), np.int32)
        for panel, alive in enumerate(survivors):
            found = np.flatnonzero(alive)
            places[starts[panel] : starts[panel] + len(found)] = found
        return places, starts

    def pack(self, weight: Array, survivors: NDArray[np.bool_]) -> Array:
        """[stored blocks, elements of a block] of ``weight`` in its element."""
        places, starts = self.index(survivors)
        blocks = self._blocks(weight)
        packed = np.zeros((len(places), self.panel, self.group_in), weight.dtype)
        for panel, alive in enumerate(survivors):
            found = blocks[panel][:, alive].transpose(1, 0, 2)
            packed[starts[panel] : starts[panel] + len(found)] = found
        tiles, groups = self.panel // self.lanes, self.group_in // self.group
        steps = len(places) // self.multiple
        split = packed.reshape(steps, self.multiple, tiles, self.lanes, groups, self.group)
        order = (0, 2, 3, 1, 4, 5) if self.by_output else (0, 1, 4, 2, 3, 5)
        return np.ascontiguousarray(split.transpose(order)).reshape(len(places), self.block_size)

    def unpack(self, packed: Array, places: Array, starts: Array) -> Array:
        """The weight [outputs, depth] that `pack` and `index` came from."""
        tiles, groups = self.panel // self.lanes, self.group_in // self.group
        steps = len(places) // self.multiple
        if self.by_output:
            shape: tuple[int, ...] = (steps, tiles, self.lanes, self.multiple, groups, self.group)
            blocks = packed.reshape(shape).transpose(0, 3, 1, 2, 4, 5)
        else:
            shape = (steps, self.multiple, groups, tiles, self.lanes, self.group)
            blocks = packed.reshape(shape).transpose(0, 1, 3, 4, 2, 5)
        blocks = blocks.reshape(len(places), self.panel, self.group_in)
        full = np.zeros((self.panels, self.panel, self.columns, self.group_in), packed.dtype)
        for panel in range(self.panels):
            for n in range(starts[panel], starts[panel + 1]):
                full[panel, :, places[n]] += blocks[n]
        whole = full.reshape(self.panels * self.panel, self.padded_depth)
        return whole[: self.outputs, : self.depth]

    def _starts(self, survivors: NDArray[np.bool_]) -> Array:
        counts = -(-survivors.sum(axis=1) // self.multiple) * self.multiple
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def _blocks(self, weight: Array) -> Array:
        """[panels, panel, columns, group_in], padded with zeros."""
        full = np.zeros((self.panels * self.panel, self.padded_depth), weight.dtype)
        full[: self.outputs, : self.depth] = weight
        return full.reshape(self.panels, self.panel, self.columns, self.group_in)


def layout_for(engine: Engine, outputs: int, depth: int) -> SparseLayout:
    """The finest blocks that an engine with sums in registers takes: four inputs or a group."""
    return SparseLayout(
        outputs=outputs,
        depth=depth,
        group_in=max(4, engine.group),
        panel=engine.panel,
        lanes=engine.lanes,
        group=engine.group,
    )
