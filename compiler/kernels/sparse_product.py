"""A linear layer whose weight has zero blocks: only the surviving ones are read and multiplied.

As `product`, but each panel of outputs walks through its own list of blocks (`sparse_format`).
The lists are read from memory: the kernel's text knows how many blocks there are in all.
"""

from __future__ import annotations

from .emitter import Emitter
from .engines.base import Block, Engine
from .epilogue import Epilogue
from .executable import Kernel, Operand
from .forms import Form, form_for
from .product import Blocks, ProductShape, Rows, panel_kernel
from .sparse_format import SparseLayout
from .values import Buffer, Value

__all__ = ["load_index", "sparse_form", "sparse_operands", "sparse_product_kernel"]


def sparse_form(engine: Engine, rows: int, layout: SparseLayout) -> Form:
    """The activations of a sparse product: columns of zeros as far as blocks reach."""
    padded = form_for(engine, rows, layout.padded_depth)
    return Form(padded.kind, rows, layout.depth, padded.padded_rows, padded.stride)


def sparse_operands(layout: SparseLayout, stored: int, element: str) -> tuple[Operand, ...]:
    """The weight as `SparseLayout` stores it: ``weights``, ``places`` and ``starts``."""
    return (
        Operand("weights", (1, stored * layout.block_size), element),
        Operand("places", (stored,), "i32"),
        Operand("starts", (layout.panels + 1,), "i32"),
    )


def load_index(e: Emitter, buffer: Buffer, at: Value) -> Value:
    """An i32 of a list, as an index."""
    return e.cast_index(e.load(buffer, [at]), "index")


def sparse_product_kernel(
    engine: Engine,
    rows: int,
    layout: SparseLayout,
    stored: int,
    epilogue: Epilogue,
    *,
    result_shape: tuple[int, int] | None = None,
) -> Kernel:
    """The kernel; its inputs are ``activations``, `sparse_operands` and the epilogue's.

    ``activations`` are in `sparse_form`; ``stored`` is `SparseLayout.stored`; the result is as
    `product_kernel`'s. Rows of infinities or NaN are undefined, as pruned inputs are not read.
    """
    form = sparse_form(engine, rows, layout)
    shape = ProductShape(rows, layout.depth, layout.outputs)
    inputs = (
        Operand("activations", (form.padded_rows, form.stride), engine.element),
        *sparse_operands(layout, stored, engine.element),
        *epilogue.operands(rows, form.padded_rows, layout.outputs, integer=form.integer),
    )
    name = (
        f"sparse_{engine.label}_{rows}x{layout.depth}x{layout.outputs}"
        f"_by{layout.group_in}_of{stored}_{epilogue.label}"
    )
    blocks = _surviving(layout.group_in // engine.group)
    return panel_kernel(name, engine, shape, epilogue, inputs, blocks, result_shape)


def _surviving(run: int) -> Blocks:
    """The surviving blocks of a panel, ``run`` depth groups each."""

    def blocks(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> Rows:
        groups = e.index(run)
        start = load_index(e, buffers["starts"], panel)
        end = load_index(e, buffers["starts"], e.add(panel, e.index(1)))

        def place(group: Value) -> Value:
            block = e.op(f"arith.divui {group}, {groups} : index", "index")
            return e.mul(load_index(e, buffers["places"], e.add(start, block)), groups)

        return lambda row, rows: Block(
            buffers["activations"],
            buffers["weights"],
            row,
            rows,
            e.index(0),
            groups=e.mul(e.sub(end, start), groups),
            group_at=place,
            run=run,
            first=e.mul(start, groups),
        )

    return blocks
