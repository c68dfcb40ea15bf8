"""A linear layer in one dispatch: activations times packed weights, epilogue included.

Before (per layer)::

    %q   = activations [rows, depth] in the engine's element, row-major
    %w   = weights packed by `Engine.pack`
    dequantise, add bias, GELU, add residual as dispatches or loops of their own

After: one dispatch that writes ``activation(x w^T + bias) + residual``. Each panel of weights is
read from memory once, all rows pass by it while it is in the second cache. Work-groups share the
panels; as a part of `fused_rows`, a product computes all outputs of a block of rows instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from .emitter import Emitter
from .engines.base import LINE, Ahead, Block, Engine
from .epilogue import Epilogue, Finish
from .executable import ByRows, Kernel, Operand, Shared
from .rows import zero_fill
from .values import Buffer, Value, bytes_of

__all__ = [
    "Blocks",
    "ProductShape",
    "Rows",
    "panel_kernel",
    "panels_at_once",
    "product_kernel",
]

Rows = Callable[[Value, int], Block]
"""Gets the first row and the number of rows; returns what they meet in one panel."""

Blocks = Callable[[Emitter, dict[str, Buffer], Value], Rows]
"""Gets the number of a panel; reads what all its rows have in common."""

_GROUPS, _MOST_GROUPS = 8, 12
_FEW_BLOCKS = 4


def panels_at_once(panels: int) -> int:
    """How many panels a work-group takes: a share that two threads in turns divide most evenly.

    There are about eight work-groups, at most twelve.
    """
    least = math.ceil(panels / _MOST_GROUPS)
    return min(range(math.ceil(panels / _GROUPS), least - 1, -1), key=partial(_busiest, panels))


def _busiest(panels: int, share: int) -> int:
    """The panels of the thread that has the first of every two shares."""
    return sum(min(share, panels - first) for first in range(0, panels, 2 * share))


@dataclass(frozen=True)
class ProductShape:
    """``rows`` x ``depth`` activations times ``outputs`` x ``depth`` weights."""

    rows: int
    depth: int
    outputs: int

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the dense product."""
        return self.rows * self.depth * self.outputs


def product_kernel(
    engine: Engine,
    shape: ProductShape,
    epilogue: Epilogue,
    *,
    result_shape: tuple[int, int] | None = None,
) -> Kernel:
    """The kernel; its inputs are ``activations``, ``weights`` and the epilogue's operands.

    ``activations``: [padded rows, row stride]; ``weights``: `Engine.packed_shape`;
    ``result``: [rows, outputs] f32, or i16 holding bf16; a larger ``result_shape`` pads it.
    Columns of padding are zero, rows of padding stay undefined.
    """
    padded_rows = engine.padded_rows(shape.rows)
    panels, panel_size = engine.packed_shape(shape.outputs, shape.depth)
    integer = engine.precision == "int8"
    inputs = (
        Operand("activations", (padded_rows, engine.row_stride(shape.depth)), engine.element),
        Operand("weights", (panels, panel_size), engine.element),
        *epilogue.operands(shape.rows, padded_rows, shape.outputs, integer=integer),
    )
    product = _Product(engine, shape, epilogue, _all_groups(engine, shape))
    kernel = product.kernel(
        f"product_{engine.label}_{shape.rows}x{shape.depth}x{shape.outputs}_{epilogue.label}",
        inputs,
        result_shape,
    )
    # In f32 the work outweighs what crosses between cores, and weights are large.
    by_rows = product.by_rows(inputs) if engine.precision != "f32" else None
    return replace(kernel, by_rows=by_rows)


def _all_groups(engine: Engine, shape: ProductShape) -> Blocks:
    groups = engine.padded_depth(shape.depth) // engine.group

    def blocks(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> Rows:
        del e
        return lambda row, rows: Block(
            buffers["activations"], buffers["weights"], row, rows, panel, groups
        )

    return blocks


def panel_kernel(
    name: str,
    engine: Engine,
    shape: ProductShape,
    epilogue: Epilogue,
    inputs: Sequence[Operand],
    blocks: Blocks,
    result_shape: tuple[int, int] | None,
) -> Kernel:
    """A product whose panels are those of ``blocks``, shared by work-groups; see above."""
    return _Product(engine, shape, epilogue, blocks).kernel(name, inputs, result_shape)


@dataclass(frozen=True)
class _Product:
    """What a product's code depends on."""

    engine: Engine
    shape: ProductShape
    epilogue: Epilogue
    blocks: Blocks

    def kernel(
        self, name: str, inputs: Sequence[Operand], result_shape: tuple[int, int] | None
    ) -> Kernel:
        """Work-groups share the panels."""
        panels = self.engine.panels(self.shape.outputs)
        element = "i16" if self.epilogue.output == "bf16" else "f32"
        buffer = result_shape or (self.shape.rows, self.shape.outputs)
        share = panels_at_once(panels)
        workgroups = math.ceil(panels / share)

        def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
            shared = Shared(e)
            first = e.mul(group, e.index(share))
            end = e.add(first, e.index(share))
            self._panels(e, buffers, shared, (first, end), (e.index(0), self.shape.rows))
            shared.finish()
            if buffer[1] > self.shape.outputs:
                # The last work-group's columns end where the padding begins.
                owner = e.cast_bool(e.compare("eq", group, e.index(workgroups - 1)))
                self._pad(e, buffers, e.index(0), e.mul(owner, e.index(self.shape.rows)))

        return Kernel(
            name=name + (f"_to_{buffer[0]}x{buffer[1]}" if result_shape else ""),
            inputs=tuple(inputs),
            outputs=(Operand("result", buffer, element),),
            workgroups=workgroups,
            body=body,
        )

    def by_rows(self, inputs: Sequence[Operand]) -> ByRows:
        """All panels for a block of rows."""
        engine = self.engine
        panels = engine.panels(self.shape.outputs)

        def body(
            e: Emitter, buffers: dict[str, Buffer], shared: Shared, first: Value, rows: int
        ) -> None:
            self._panels(e, buffers, shared, (e.index(0), e.index(panels)), (first, rows))
            if buffers["result"].shape[1] > self.shape.outputs:
                self._pad(e, buffers, first, e.add(first, e.index(rows)))

        (weights,) = (operand for operand in inputs if operand.name == "weights")
        return ByRows(
            rows=self.shape.rows,
            multiple=engine.row_multiple,
            operands=frozenset({"activations", "row_scales", "residual", "result"}),
            prepare=self._state,
            body=body,
            weight_bytes=math.prod(weights.shape) * bytes_of(weights.element),
            at_once=math.ceil(engine.fewest_rows / engine.block_rows) * engine.block_rows,
        )

    def _state(self, shared: Shared) -> object:
        engine = self.engine
        return shared.prepared(engine.label, engine.prepare, engine.finish)

    def _pad(self, e: Emitter, buffers: dict[str, Buffer], first: Value, end: Value) -> None:
        with e.loop(first, end) as rows:
            zero_fill(e, buffers["result"], rows.index, self.shape.outputs)

    def _panels(
        self,
        e: Emitter,
        buffers: dict[str, Buffer],
        shared: Shared,
        panels: tuple[Value, Value],
        part: tuple[Value, int],
    ) -> None:
        """The panels from the first to before the second, as far as there are such, for ``part``:
        a first row and a number of rows."""
        engine = self.engine
        state = self._state(shared)
        first, end = panels
        start, rows = part
        full, rest = divmod(self.shape.outputs, engine.panel)
        whole = rows // engine.block_rows * engine.block_rows

        def all_rows(panel: Value, columns: int) -> None:
            column = e.mul(panel, e.index(engine.panel))
            finish = Finish(
                e, self.epilogue, buffers, column=column, columns=columns, lanes=engine.lanes
            )
            block = self.blocks(e, buffers, panel)

            def multiply(first: Value, count: int) -> None:
                one = block(e.add(start, first), count)
                ahead = self._ahead(e, one, first, rows)
                engine.multiply(e, state, replace(one, ahead=ahead), finish.row)

            if whole:
                with e.loop(0, whole, engine.block_rows) as loop:
                    multiply(loop.index, engine.block_rows)
            if rows > whole:
                multiply(e.index(whole), rows - whole)

        with e.loop(first, e.least(end, full)) as panel:
            all_rows(panel.index, engine.panel)
        if rest:
            # Runs once, in the work-group whose share the last panel is.
            with e.loop(e.greatest(first, full), e.least(end, full + 1)) as panel:
                all_rows(panel.index, rest)

    def _ahead(self, e: Emitter, block: Block, first: Value, rows: int) -> Ahead | None:
        """The share of the next panel that the block from row ``first`` on asks for.

        Else the first block of a panel would wait for memory, which is idle during the others.
        """
        engine = self.engine
        panels, size = engine.packed_shape(self.shape.outputs, self.shape.depth)
        blocks = math.ceil(rows / engine.block_rows)
        if not engine.fetches_ahead or block.group_at is not None:
            return None
        if blocks < _FEW_BLOCKS or panels == 1:
            return None
        number = e.div(first, e.index(engine.block_rows))
        start = e.mul(number, e.index(size // blocks))
        every = max(1, blocks * LINE // (engine.panel * engine.group * bytes_of(engine.element)))
        return Ahead(e.add(block.panel, e.index(1)), start, every)
