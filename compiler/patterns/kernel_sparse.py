"""A linear layer whose weight has blocks of zeros becomes a kernel that leaves them out.

Before::

    %y = torch.aten.linear %x, %w, %b           many blocks of %w are zero

After: ``%y = kernel(%x, surviving blocks of %w, places, starts, %b)``, as `kernel_linear` plans
it for the others. In AMX tiles, ``%x`` is turned first, by a kernel of its own.

Law: x w^T is the sum over blocks of depth; a block of zeros adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..kernels.choosing.choices import chosen_engine, chosen_for_zeros
from ..kernels.choosing.problem import Problem
from ..kernels.choosing.zeros import PANELS, Zeros, zeros_of
from ..kernels.engines.base import Engine
from ..kernels.epilogue import Epilogue
from ..kernels.executable import Kernel
from ..kernels.forms import Form
from ..kernels.product import ProductShape
from ..kernels.sparse_choice import (
    SparseChoice,
    SparseEngine,
    chosen_lanes,
    chosen_sparse,
    sparse_activations,
    sparse_candidates,
    sparse_choice,
    sparse_kernel,
    sparse_label,
    sparse_layout,
)
from ..kernels.sparse_format import SparseLayout
from ..kernels.sparse_gpu import SparseLanes
from ..kernels.sparse_tiles import SparseTiles
from ..kernels.words import words_kernel
from ..parameters import Parameter
from ..sparsity import blocks_stored
from .base import PatternContext
from .cut_weights import Meeting
from .kernel_calls import KernelCalls
from .product_weights import (
    DTYPES,
    integer_vectors,
    note_unmeasured,
    parts_of,
    precision_of,
    rounded_weight,
)

__all__ = ["SparseWeight", "sparse_cost", "sparse_weight", "zeros_in"]


@dataclass(frozen=True)
class SparseWeight:
    """How a planned product reads a weight of which ``stored`` blocks are kept."""

    engine: SparseEngine
    shape: ProductShape
    stored: int
    blocks: tuple[Parameter, ...]
    vectors: tuple[Parameter, ...]
    smoothing: str
    """The vector that the activations are multiplied by first, or ""."""

    def form(self) -> Form:
        """The form of the activations."""
        form = sparse_activations(self.engine, self.shape.rows, self._layout)
        return replace(form, smoothing=self.smoothing)

    def kernel(self, epilogue: Epilogue, result_shape: tuple[int, int] | None) -> Kernel:
        """The product."""
        return sparse_kernel(
            self.engine,
            self.shape.rows,
            self._layout,
            self.stored,
            epilogue,
            result_shape=result_shape,
        )

    def arguments(self, calls: KernelCalls, activations: Sequence[Any]) -> list[Any]:
        """What the kernel takes before the bias."""
        values, *scales = activations
        if isinstance(self.engine, SparseTiles):
            form = self.engine.form(self.shape.rows, self.shape.depth)
            turn = words_kernel(
                form.padded_rows, form.stride, self.engine.element, self.engine.block_rows
            )
            (values,) = calls.call(turn, [values])
        blocks = [calls.parameter(parameter) for parameter in self.blocks]
        vectors = [calls.parameter(parameter) for parameter in self.vectors]
        return [values, *blocks, *scales, *vectors]

    @property
    def _layout(self) -> SparseLayout:
        return sparse_layout(self.engine, self.shape.outputs, self.shape.depth)


def sparse_weight(
    context: PatternContext, dense: Engine, name: str, shape: ProductShape
) -> SparseWeight | None:
    """The sparse way to read the parameter ``name``; None where ``dense`` is faster."""
    table = context.parameters
    chosen = _chosen(context, dense, name, shape)
    smoothing = ""
    if dense.precision == "int8":
        name, smoothing = rounded_weight(context, name)
    if chosen is None:
        return None
    engine, stored = chosen.engine, chosen.stored
    layout = sparse_layout(engine, shape.outputs, shape.depth)
    label = sparse_label(engine)
    shapes = {
        "pack_sparse": ((1, stored * layout.block_size), DTYPES[engine.precision]),
        "sparse_places": ((stored,), "int32"),
        "sparse_starts": ((layout.panels + 1,), "int32"),
    }
    blocks = [
        table.derive(kind, [name], shape=size, dtype=dtype, engine=label)
        for kind, (size, dtype) in shapes.items()
    ]
    vectors = integer_vectors(table, name) if engine.precision == "int8" else ()
    context.notes.append(
        f"{name}: {chosen.density:.0%} of its blocks of {layout.group_in} x {layout.panel} are "
        f"kept and multiplied ({engine.name})."
    )
    return SparseWeight(engine, shape, stored, tuple(blocks), vectors, smoothing)


def sparse_cost(context: PatternContext, name: str, rows: int) -> float:
    """The time of the product with the parameter ``name`` over that of the dense one: below 1
    where a sparse one is faster."""
    outputs, depth = context.parameters[name].shape
    precision = precision_of(context, name)
    if context.target.kind != "cpu":
        lanes = SparseLanes("f32")
        blocks = _stored(context, name, lanes.layout(outputs, depth))
        subgroup = context.target.subgroup_size or 1
        if blocks is None or not lanes.serves(outputs, depth):
            return 1.0
        by_lanes = chosen_lanes(lanes, outputs, depth, blocks, subgroup)
        return by_lanes.cost if by_lanes else 1.0
    shape = ProductShape(rows, depth, outputs)
    dense = chosen_engine(context.choices, context.target.features, precision, shape)
    found = _chosen(context, dense, name, shape) if isinstance(dense, Engine) else None
    return found.cost if found is not None else 1.0


def zeros_in(context: PatternContext, name: str) -> Zeros | None:
    """What is zero in the parameter ``name``, as measurements tell it."""
    outputs, depth = context.parameters[name].shape
    densities = {}
    for panel in PANELS:
        layout = SparseLayout(outputs, depth, 4, panel, panel, 1)
        count = _stored(context, name, layout)
        if count is not None:
            densities[panel] = count / (layout.panels * layout.columns)
    inputs = Meeting(context=context, size=depth, readers=tuple(parts_of(context, name)))
    return zeros_of(densities, inputs.kept / depth)


def _stored(context: PatternContext, name: str, layout: SparseLayout) -> int | None:
    """How many blocks a layout would keep of a weight; None where it is not known."""
    rounded = precision_of(context, name) == "int8"
    weight = rounded_weight(context, name)[0] if rounded else name
    return blocks_stored(context.parameters, context.blocks, weight, layout)


def _chosen(
    context: PatternContext, dense: Engine, name: str, shape: ProductShape
) -> SparseChoice | None:
    """As measured for weights with such zeros, else by rule."""
    features = context.target.features
    stored = partial(_stored, context, name)
    zeros = zeros_in(context, name)
    if zeros is None:
        return chosen_sparse(dense, shape, stored, features)
    problem = Problem(
        dense.precision, shape.rows, shape.depth, shape.outputs, zeros.panel, zeros.kept
    )
    note_unmeasured(context, problem)
    measured = chosen_for_zeros(context.choices, dense.precision, shape, zeros)
    if isinstance(measured, str):
        return None
    engines = sparse_candidates(dense, shape.rows, frozenset(features))
    if measured is not None and measured in engines:
        return sparse_choice(measured, dense, shape, stored)
    return chosen_sparse(dense, shape, stored, features)
