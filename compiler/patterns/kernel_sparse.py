"""A linear layer whose weight has blocks of zeros becomes a kernel that leaves them out.

Before::

    %y = torch.aten.linear %x, %w, %b           many blocks of %w are zero

After: ``%y = kernel(%x, surviving blocks of %w, places, starts, %b)``, as `kernel_linear` plans
it for the others. In AMX tiles, ``%x`` is turned first, by a kernel of its own.

Law: x w^T is the sum over blocks of depth; a block of zeros adds nothing. Where weights alone are
narrow, the blocks are what `stored_weight` would dequantise, and are taken if they are as small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..kernels.choosing.choices import chosen_engine, chosen_for_zeros
from ..kernels.choosing.problem import Problem
from ..kernels.choosing.zeros import PANELS, Zeros, zeros_of
from ..kernels.engines.base import Engine
from ..kernels.engines.registry import engine_for
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
from ..quantization.precisions import WEIGHT_BITS
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
from .stored_weight import panel_engine

__all__ = ["SparseWeight", "sparse_cost", "sparse_stand_in", "sparse_weight", "zeros_in"]

# How much faster linalg's dense product may be than the best kernel's, where it was measured to
# be faster: none in the table that ships is.
_LINALG_FASTER = 1.5


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
    """The sparse way to read the parameter ``name``; None where ``dense`` is faster, or where
    weights alone are narrow and their codes are smaller than the blocks that ``dense`` reads."""
    table = context.parameters
    weight, smoothing = _read(context, name, dense.precision)
    chosen = _chosen(context, dense, name, shape)
    if chosen is None:
        if _chosen(context, dense, name, shape, of_any_size=True) is not None:
            context.notes.append(
                f"{weight}: its blocks of zeros are stored and multiplied, because all of it in "
                f"codes is smaller than what else there is in {dense.precision}."
            )
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
        table.derive(kind, [weight], shape=size, dtype=dtype, engine=label)
        for kind, (size, dtype) in shapes.items()
    ]
    vectors = integer_vectors(table, weight) if engine.precision == "int8" else ()
    context.notes.append(
        f"{weight}: {chosen.density:.0%} of its blocks of {layout.group_in} x {layout.panel} are "
        f"kept and multiplied ({engine.name})."
    )
    return SparseWeight(engine, shape, stored, tuple(blocks), vectors, smoothing)


def sparse_cost(context: PatternContext, name: str, rows: int) -> float:
    """The time of the product with the parameter ``name`` over that of the dense one: below 1
    where a sparse one is faster."""
    outputs, depth = context.parameters[name].shape
    if context.target.kind != "cpu":
        lanes = SparseLanes("f32")
        blocks = _stored(context, name, lanes.layout(outputs, depth))
        subgroup = context.target.subgroup_size or 1
        if blocks is None or not lanes.serves(outputs, depth):
            return 1.0
        by_lanes = chosen_lanes(lanes, outputs, depth, blocks, subgroup)
        return by_lanes.cost if by_lanes else 1.0
    found = _over_dense(context, name, ProductShape(rows, depth, outputs))
    return 1.0 if found is None else found[1]


def sparse_stand_in(context: PatternContext, name: str, shape: ProductShape) -> Engine | None:
    """The engine whose sparse product, by `sparse_weight`, stands in for a dense one that is
    linalg's or by codes; None where the dense one is faster or smaller."""
    found = _over_dense(context, name, shape)
    return None if found is None else found[0]


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


def _over_dense(
    context: PatternContext, name: str, shape: ProductShape
) -> tuple[Engine, float] | None:
    """An engine and the time of its sparse product over that of the dense one, if it is less."""
    features, precision = context.target.features, precision_of(context, name)
    faster = 1.0
    if precision in WEIGHT_BITS:
        dense = panel_engine(context, shape)
    else:
        measured = chosen_engine(context.choices, features, precision, shape)
        if measured == "linalg":
            measured = engine_for(features, precision, shape.outputs, shape.rows)
            faster = _LINALG_FASTER
        dense = measured if isinstance(measured, Engine) else None
    if dense is None:
        return None
    chosen = _chosen(context, dense, name, shape)
    if chosen is None or chosen.cost * faster >= 1:
        return None
    return dense, chosen.cost * faster


def _read(context: PatternContext, name: str, multiplied: str) -> tuple[str, str]:
    """The weight that stands for the parameter ``name`` in a product of the precision
    ``multiplied``, and its smoothing vector or ""."""
    if multiplied == "int8" or precision_of(context, name) in WEIGHT_BITS:
        return rounded_weight(context, name)
    return name, ""


def _stored(context: PatternContext, name: str, layout: SparseLayout) -> int | None:
    """How many blocks a layout would keep of a weight; None where it is not known."""
    weight, _ = _read(context, name, precision_of(context, name))
    return blocks_stored(context.parameters, context.blocks, weight, layout)


def _chosen(
    context: PatternContext,
    dense: Engine,
    name: str,
    shape: ProductShape,
    *,
    of_any_size: bool = False,
) -> SparseChoice | None:
    """The fastest blocks for the parameter ``name``, if they are faster than ``dense``: as
    measured for weights with such zeros, else by rule; where codes are asked for by rule, of
    those that take no more room than codes."""
    features = context.target.features
    weight, _ = _read(context, name, dense.precision)
    codes = WEIGHT_BITS.get(precision_of(context, name))
    bits = None if of_any_size else codes
    element = {"f32": 4, "bf16": 2, "int8": 1}[dense.precision]

    def stored(layout: SparseLayout) -> int | None:
        count = blocks_stored(context.parameters, context.blocks, weight, layout)
        if count is None or bits is None:
            return count
        size = count * (layout.block_size * element + 4) + 4 * (layout.panels + 1)
        return count if size <= shape.outputs * shape.depth * bits / 8 else None

    zeros = None if codes is not None else zeros_in(context, name)
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
