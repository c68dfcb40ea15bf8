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
from dataclasses import dataclass

from .emitter import Buffer, Emitter, Value
from .engines.base import Block, Engine
from .epilogue import Epilogue, Finish
from .executable import Kernel, Operand
from .rows import zero_fill

__all__ = ["ProductShape", "product_kernel"]

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
    element = "i16" if epilogue.output == "bf16" else "f32"
    buffer = result_shape or (shape.rows, shape.outputs)
    result = Operand("result", buffer, element)
    share = math.ceil(panels / _MOST_GROUPS)
    workgroups = math.ceil(panels / share)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        state = engine.prepare(e)
        first = e.mul(group, e.index(share))
        full, rest = divmod(shape.outputs, engine.panel)
        last = e.least(e.add(first, e.index(share)), full)
        with e.loop(first, last) as panel:
            _panel(e, engine, shape, epilogue, buffers, panel.index, engine.panel, state)
        if rest:
            # Runs once, in the work-group whose share the last panel is.
            start = e.greatest(first, full)
            end = e.least(e.add(first, e.index(share)), full + 1)
            with e.loop(start, end) as panel:
                _panel(e, engine, shape, epilogue, buffers, panel.index, rest, state)
        engine.finish(e)
        if buffer[1] > shape.outputs:
            # The last work-group's columns end where the padding begins.
            owner = e.cast_bool(e.compare("eq", group, e.index(workgroups - 1)))
            with e.loop(0, e.mul(owner, e.index(shape.rows))) as rows:
                zero_fill(e, buffers["result"], rows.index, shape.outputs)

    return Kernel(
        name=(
            f"product_{engine.label}_{shape.rows}x{shape.depth}x{shape.outputs}_{epilogue.label}"
            + (f"_to_{buffer[0]}x{buffer[1]}" if result_shape else "")
        ),
        inputs=inputs,
        outputs=(result,),
        workgroups=workgroups,
        body=body,
    )


def _panel(
    e: Emitter,
    engine: Engine,
    shape: ProductShape,
    epilogue: Epilogue,
    buffers: dict[str, Buffer],
    panel: Value,
    columns: int,
    state: object,
) -> None:
    """All rows by one panel, of which the first ``columns`` outputs exist."""
    column = e.mul(panel, e.index(engine.panel))
    finish = Finish(e, epilogue, buffers, column=column, columns=columns, lanes=engine.lanes)
    groups = engine.padded_depth(shape.depth) // engine.group

    def block(row: Value, rows: int) -> None:
        made = Block(buffers["activations"], buffers["weights"], row, rows, panel, groups)
        engine.multiply(e, state, made, finish.row)

    whole = shape.rows // engine.block_rows * engine.block_rows
    if whole:
        with e.loop(0, whole, engine.block_rows) as rows:
            block(rows.index, engine.block_rows)
    if shape.rows > whole:
        block(e.index(whole), shape.rows - whole)
