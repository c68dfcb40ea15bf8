"""A linear layer in one dispatch: activations times packed weights, epilogue included.

Before (per layer)::

    %q   = activations [rows, depth] in the engine's element, row-major
    %w   = weights packed by `Engine.pack`
    dequantise, add bias, GELU, add residual as dispatches or loops of their own

After: one dispatch that writes ``activation(x w^T + bias) + residual``. Each panel of weights is
read from memory once, all rows pass by it while it is in the second cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .emitter import Buffer, Emitter, Value
from .engines.base import Block, Engine
from .epilogue import Epilogue, Finish
from .executable import Kernel, Operand
from .rows import zero_fill

__all__ = ["Blocks", "ProductShape", "Rows", "panel_kernel", "product_kernel"]

Rows = Callable[[Value, int], Block]
"""Gets the first row and the number of rows; returns what they meet in one panel."""

Blocks = Callable[[Emitter, dict[str, Buffer], Value], Rows]
"""Gets the number of a panel; reads what all its rows have in common."""

_MOST_GROUPS = 8


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
    return panel_kernel(
        f"product_{engine.label}_{shape.rows}x{shape.depth}x{shape.outputs}_{epilogue.label}",
        engine,
        shape,
        epilogue,
        inputs,
        _all_groups(engine, shape),
        result_shape,
    )


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
    panels = engine.panels(shape.outputs)
    element = "i16" if epilogue.output == "bf16" else "f32"
    buffer = result_shape or (shape.rows, shape.outputs)
    result = Operand("result", buffer, element)
    share = math.ceil(panels / _MOST_GROUPS)
    workgroups = math.ceil(panels / share)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        state = engine.prepare(e)

        def panel_of(panel: Value, columns: int) -> None:
            column = e.mul(panel, e.index(engine.panel))
            finish = Finish(
                e, epilogue, buffers, column=column, columns=columns, lanes=engine.lanes
            )
            _all_rows(e, engine, shape.rows, blocks(e, buffers, panel), finish, state)

        first = e.mul(group, e.index(share))
        full, rest = divmod(shape.outputs, engine.panel)
        last = e.least(e.add(first, e.index(share)), full)
        with e.loop(first, last) as panel:
            panel_of(panel.index, engine.panel)
        if rest:
            # Runs once, in the work-group whose share the last panel is.
            start = e.greatest(first, full)
            end = e.least(e.add(first, e.index(share)), full + 1)
            with e.loop(start, end) as panel:
                panel_of(panel.index, rest)
        engine.finish(e)
        if buffer[1] > shape.outputs:
            # The last work-group's columns end where the padding begins.
            owner = e.cast_bool(e.compare("eq", group, e.index(workgroups - 1)))
            with e.loop(0, e.mul(owner, e.index(shape.rows))) as rows:
                zero_fill(e, buffers["result"], rows.index, shape.outputs)

    return Kernel(
        name=name + (f"_to_{buffer[0]}x{buffer[1]}" if result_shape else ""),
        inputs=tuple(inputs),
        outputs=(result,),
        workgroups=workgroups,
        body=body,
    )


def _all_rows(
    e: Emitter, engine: Engine, rows: int, block: Rows, finish: Finish, state: object
) -> None:
    """All rows by one panel."""
    whole = rows // engine.block_rows * engine.block_rows
    if whole:
        with e.loop(0, whole, engine.block_rows) as loop:
            engine.multiply(e, state, block(loop.index, engine.block_rows), finish.row)
    if rows > whole:
        engine.multiply(e, state, block(e.index(whole), rows - whole), finish.row)
