"""A linear layer whose weight has zero blocks, in AMX tiles.

A tile takes 16 depth groups at once, so the surviving ones must first stand together. That is
cheap only for whole rows of tiles, hence everything is transposed, y^T = W x^T: a tile of
weights is 16 outputs by 16 surviving groups, and picking a group of the activations copies one
row of 64 bytes, its words of 16 rows (`words`). Copies run one step ahead of the products that
read them. Sums, [outputs][rows], are turned on their way to the epilogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .emitter import Emitter
from .engines.amx import request_tiles
from .epilogue import Epilogue, Finish
from .executable import Kernel, Operand
from .forms import Form, Kind
from .rows import zero_fill
from .sparse_format import SparseLayout
from .sparse_product import load_index, sparse_operands
from .values import Buffer, Value
from .words import turned, words_shape

__all__ = ["MOST_GROUPS", "SparseTiles"]

_SIDE = 16
_BYTES = 64
_TILE = _SIDE * _BYTES
MOST_GROUPS = 4
"""The most work-groups that the panels are shared by."""


@dataclass(frozen=True)
class SparseTiles:
    """``tiles`` of 16 outputs by ``block_rows`` rows; six tile registers at most hold sums."""

    precision: str
    tiles: int = 3
    name = "amx_sparse"
    TILES: ClassVar[tuple[int, ...]] = (1, 2, 3)

    @property
    def panel(self) -> int:
        """Outputs of one panel."""
        return self.tiles * _SIDE

    @property
    def block_rows(self) -> int:
        """Rows that go at once."""
        return 32 if self.tiles > 1 else 64

    @property
    def element(self) -> str:
        """The element of weights in memory."""
        return {"int8": "i8", "bf16": "i16"}[self.precision]

    @property
    def label(self) -> str:
        """All of it, as part of a kernel's name."""
        return f"{self.name}_{self.precision}_{self.block_rows}x{self.panel}"

    def layout(self, outputs: int, depth: int) -> SparseLayout:
        """Blocks of four inputs; 16 groups of four bytes are one step."""
        group = {"int8": 4, "bf16": 2}[self.precision]
        return SparseLayout(
            outputs=outputs,
            depth=depth,
            group_in=4,
            panel=self.panel,
            lanes=_SIDE,
            group=group,
            multiple=_SIDE * group // 4,
            by_output=True,
        )

    def form(self, rows: int, depth: int) -> Form:
        """The activations that `words.words_kernel` turns: whole tiles of rows and words."""
        kind: Kind = "u8" if self.precision == "int8" else "bf16"
        per_tile = _BYTES // (1 if self.precision == "int8" else 2)
        stride = math.ceil(depth / per_tile) * per_tile
        return Form(kind, rows, depth, math.ceil(rows / _SIDE) * _SIDE, stride)

    def kernel(
        self,
        rows: int,
        layout: SparseLayout,
        stored: int,
        epilogue: Epilogue,
        *,
        result_shape: tuple[int, int] | None = None,
    ) -> Kernel:
        """As `sparse_product_kernel`, but ``activations`` are turned words of `form`."""
        form = self.form(rows, layout.depth)
        row_bytes = form.stride * (1 if self.precision == "int8" else 2)
        inputs = (
            Operand(
                "activations", words_shape(form.padded_rows, row_bytes, self.block_rows), "i32"
            ),
            *sparse_operands(layout, stored, self.element),
            *epilogue.operands(rows, form.padded_rows, layout.outputs, integer=form.integer),
        )
        buffer = result_shape or (rows, layout.outputs)
        share = math.ceil(layout.panels / MOST_GROUPS)
        workgroups = math.ceil(layout.panels / share)
        full, rest = divmod(layout.outputs, self.panel)

        def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
            request_tiles(e)
            work = _Work(e, self, layout, stored, epilogue, buffers, rows)
            first = e.mul(group, e.index(share))
            end = e.add(first, e.index(share))
            # Panels inside, so that the result is written along its rows.
            with e.loop(0, math.ceil(rows / self.block_rows)) as block:
                with e.loop(first, e.least(end, full)) as panel:
                    work.block(panel.index, block.index, self.panel)
                if rest:
                    with e.loop(e.greatest(first, full), e.least(end, full + 1)) as panel:
                        work.block(panel.index, block.index, rest)
            e.effect("llvm.x86.tilerelease", [])
            if buffer[1] > layout.outputs:
                owner = e.cast_bool(e.compare("eq", group, e.index(workgroups - 1)))
                with e.loop(0, e.mul(owner, e.index(rows))) as row:
                    zero_fill(e, buffers["result"], row.index, layout.outputs)

        name = f"sparse_{self.label}_{rows}x{layout.depth}x{layout.outputs}_of{stored}"
        return Kernel(
            name=f"{name}_{epilogue.label}"
            + (f"_to_{buffer[0]}x{buffer[1]}" if result_shape else ""),
            inputs=inputs,
            outputs=(Operand("result", buffer, "i16" if epilogue.output == "bf16" else "f32"),),
            workgroups=workgroups,
            body=body,
        )


class _Work:
    """What a work-group has at hand: the picked rows of two steps, and two forms of the sums."""

    def __init__(
        self,
        e: Emitter,
        engine: SparseTiles,
        layout: SparseLayout,
        stored: int,
        epilogue: Epilogue,
        buffers: dict[str, Buffer],
        rows: int,
    ) -> None:
        self._e, self._engine, self._layout = e, engine, layout
        self._epilogue, self._buffers, self._rows = epilogue, buffers, rows
        self._last_step = stored // layout.multiple - 1
        self._row_tiles = engine.block_rows // _SIDE
        sums = "i32" if engine.precision == "int8" else "f32"
        self._picked = e.scratch((2, _SIDE, engine.block_rows), "i32")
        self._sums = e.scratch((engine.panel, engine.block_rows), sums)
        self._by_row = e.scratch((_SIDE, engine.panel), sums)
        self._tile = [e.literal(i, "i8") for i in range(8)]

    def block(self, panel: Value, block: Value, columns: int) -> None:
        """A block of rows by one panel, of which the first ``columns`` outputs exist."""
        e, engine = self._e, self._engine
        starts, multiple = self._buffers["starts"], e.index(self._layout.multiple)
        for i in range(self._row_tiles * engine.tiles):
            e.effect("llvm.x86.tilezero", [self._tile[i]])
        start, end = (
            e.op(f"arith.divui {found}, {multiple} : index", "index")
            for found in (
                load_index(e, starts, panel),
                load_index(e, starts, e.add(panel, e.index(1))),
            )
        )
        self._pick(e.least(start, self._last_step), start, block)
        with e.loop(start, end) as step:
            following = e.add(step.index, e.index(1))
            self._pick(e.least(following, self._last_step), following, block)
            self._products(step.index)
        self._finish(panel, block, columns)

    def _slot(self, step: Value) -> Value:
        return self._e.remainder(step, self._e.index(2))

    def _pick(self, step: Value, turn: Value, block: Value) -> None:
        """Copy the words of the step's groups, of all rows of the block, to a slot."""
        e, layout = self._e, self._layout
        slot = self._slot(turn)
        first = e.mul(step, e.index(layout.multiple))
        words = layout.group_in // layout.group
        for n in range(layout.multiple):
            place = load_index(e, self._buffers["places"], e.add(first, e.index(n)))
            word = e.mul(place, e.index(words))
            for k in range(words):
                for i in range(0, self._engine.block_rows, _SIDE):
                    at: list[int | Value] = [block, e.add(word, e.index(k)), i]
                    found = e.load_vector(self._buffers["activations"], at, _SIDE)
                    e.store_vector(found, self._picked, [slot, n * words + k, i])

    def _products(self, step: Value) -> None:
        """All sum tiles by one step: back and forth over the rows, to load fewer tiles of them."""
        e, engine = self._e, self._engine
        weights = e.mul(step, e.index(engine.tiles * _TILE))
        stride = engine.block_rows * 4
        picked = e.mul(self._slot(step), e.index(_SIDE * stride))
        op = "llvm.x86.tdpbsud" if engine.precision == "int8" else "llvm.x86.tdpbf16ps"
        order = list(range(self._row_tiles))
        loaded = None
        for j in range(engine.tiles):
            address = e.pointer(self._buffers["weights"], e.add(weights, e.index(j * _TILE)))
            e.effect("llvm.x86.tileloadd64", [self._tile[7], address, e.literal(_BYTES, "i64")])
            for i in order:
                if i != loaded:
                    address = e.pointer(self._picked, e.add(picked, e.index(i * _BYTES)))
                    operands = [self._tile[6], address, e.literal(stride, "i64")]
                    e.effect("llvm.x86.tileloadd64", operands)
                    loaded = i
                sums = self._tile[i * engine.tiles + j]
                e.effect(op, [sums, self._tile[7], self._tile[6]])
            order.reverse()

    def _finish(self, panel: Value, block: Value, columns: int) -> None:
        e, engine = self._e, self._engine
        stride = engine.block_rows * 4
        for i in range(self._row_tiles):
            for j in range(engine.tiles):
                address = e.pointer(self._sums, e.index(j * _SIDE * stride + i * _BYTES))
                operands = [
                    self._tile[i * engine.tiles + j],
                    address,
                    e.literal(stride, "i64"),
                ]
                e.effect("llvm.x86.tilestored64", operands)
        column = e.mul(panel, e.index(engine.panel))
        finish = Finish(
            e, self._epilogue, self._buffers, column=column, columns=columns, lanes=_SIDE
        )
        tiles = range(math.ceil(columns / _SIDE))
        with e.loop(0, engine.block_rows, _SIDE) as loop:
            first = e.add(e.mul(block, e.index(engine.block_rows)), loop.index)
            for j in tiles:
                found = [
                    e.load_vector(self._sums, [j * _SIDE + i, loop.index], _SIDE)
                    for i in range(_SIDE)
                ]
                for i, vector in enumerate(turned(e, found)):
                    e.store_vector(vector, self._by_row, [i, j * _SIDE])
            # No row is left where the block reaches beyond the last one.
            end = e.least(e.add(first, e.index(_SIDE)), self._rows)
            with e.loop(first, end) as row:
                at = e.sub(row.index, first)
                sums = [e.load_vector(self._by_row, [at, j * _SIDE], _SIDE) for j in tiles]
                finish.row(row.index, sums)
