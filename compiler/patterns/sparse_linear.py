"""On a GPU, a linear layer whose weight has blocks of zeros leaves them out.

Before::

    %y = torch.aten.linear %x, %w, %b           many blocks of %w, 4 inputs x 16 outputs, are zero

After::

    %s = flow.dispatch @gpu_sparse...(%x, surviving blocks of %w, places, starts, %b)
    %y = view of %s

Law: x w^T is the sum over blocks of depth; a block of zeros adds nothing. In a narrow precision
the weight is rounded as elsewhere; activations are not, their sums are in f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iree.compiler import ir

from ..kernels.sparse_choice import chosen_lanes
from ..kernels.sparse_gpu import SparseLanes, sparse_gpu_kernel
from ..parameters import Parameter
from ..quantization.precisions import WEIGHT_BITS
from ..sparsity import blocks_stored
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, rows_and_width
from .narrow_precision import narrow_precision
from .product_weights import integer_vectors, rounded_weight
from .torch_ops import parameter_name, tensor_shape

__all__ = ["SparseLinear"]

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "int16", "int8": "int8"}


class SparseLinear(Pattern):
    """See the module's docstring."""

    name = "canao.sparse_linear"
    stage: Stage = "torch"
    target_kinds = ("vulkan",)
    after = ("canao.fuse_qkv",)
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every linear layer that is faster without its zero blocks."""
        applied = 0
        for op in operations(module, "torch.aten.linear"):
            found = _sparse(op, context)
            if found is not None:
                _replace(module, op, context, found)
                applied += 1
        return applied


@dataclass(frozen=True)
class _Sparse:
    engine: SparseLanes
    weight: str
    smoothing: str
    stored: int
    density: float


def _sparse(op: Any, context: PatternContext) -> _Sparse | None:
    """How a linear layer leaves blocks out; None where it is faster dense."""
    name = parameter_name(op.operands[1])
    shape, element = tensor_shape(op.operands[1])
    bias = op.operands[2]
    if name is None or len(shape) != 2 or element != "f32":
        return None
    if str(bias.type) != "!torch.none" and tensor_shape(bias)[1] != "f32":
        return None
    precision = narrow_precision(op, context)
    # Activations are not rounded here, so narrow weights alone are what int8 is.
    precision = "int8" if precision in WEIGHT_BITS else precision
    engine = SparseLanes(precision)
    if precision not in _DTYPES or not engine.serves(*shape):
        return None
    smoothing = ""
    if precision == "int8":
        name, smoothing = rounded_weight(context, name)
    stored = blocks_stored(context.parameters, context.blocks, name, engine.layout(*shape))
    if stored is None:
        return None
    chosen = chosen_lanes(engine, *shape, stored, context.target.subgroup_size or 1)
    return _Sparse(engine, name, smoothing, stored, chosen.density) if chosen else None


def _replace(module: ir.Module, op: Any, context: PatternContext, found: _Sparse) -> None:
    source, _, bias = op.operands
    rows, _ = rows_and_width(source)
    table, engine = context.parameters, found.engine
    layout = engine.layout(*table[found.weight].shape)
    biased = str(bias.type) != "!torch.none"
    kernel = sparse_gpu_kernel(
        engine,
        rows,
        layout,
        found.stored,
        lanes=context.target.subgroup_size or 1,
        biased=biased,
        smoothed=bool(found.smoothing),
    )
    shapes = {
        "pack_sparse": ((1, found.stored * layout.block_size), _DTYPES[engine.precision]),
        "sparse_places": ((found.stored,), "int32"),
        "sparse_starts": ((layout.panels + 1,), "int32"),
    }
    weights: list[Parameter] = [
        table.derive(kind, [found.weight], shape=size, dtype=dtype, engine=engine.label)
        for kind, (size, dtype) in shapes.items()
    ]
    if engine.precision == "int8":
        weights.append(integer_vectors(table, found.weight)[0])
    if found.smoothing:
        weights.append(table[found.smoothing])
    calls = KernelCalls(module, context, op.location)
    with ir.InsertionPoint(op):
        arguments = [calls.matrix(source), *map(calls.parameter, weights)]
        arguments += [calls.builtin(bias)] if biased else []
        (result,) = calls.call(kernel, arguments)
        op.results[0].replace_all_uses_with(calls.restored(result, op.results[0].type))
    op.erase()
    context.kernels[f"product {engine.name}"] += 1
    context.notes.append(
        f"{found.weight}: {found.density:.0%} of its blocks of {layout.group_in} x "
        f"{layout.panel} are kept and multiplied ({engine.name})."
    )
