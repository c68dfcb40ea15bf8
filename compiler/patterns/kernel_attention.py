"""Attention becomes one kernel that reads the projections where they are.

Before::

    %q = permute (view (slice %qkv))          [B,H,S,D], likewise %k and %v
    %o = torch.aten.scaled_dot_product_attention %q, %k, %v, %mask, ...
    %y = view (permute %o)                    [B,S,H*D]

After: ``%y = kernel(%qkv, %bias)``, with %bias = 0 where the mask is true, else -inf; of one query
where the mask is the same for all (`masks`).

Law: the definition of attention; splitting into heads and joining them are index maps, which the
kernel follows instead of copying. Where q, k or v comes in another way (rotated, say), heads are
brought side by side first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iree.compiler import ir

from ..kernels.attention import AttentionForm, attention_kernel, serves
from ..kernels.attention_shape import AttentionShape, Matrix, Sources, View
from ..kernels.engines.base import Engine
from ..kernels.engines.registry import engines
from ..kernels.forms import Form, Kind, plain
from .base import Pattern, PatternContext, Stage, operations
from .head_views import HeadView, joined_heads, view_of_heads
from .kernel_calls import KernelCalls, rows_and_width
from .masks import without_queries
from .planned import Planned, plan_op
from .torch_ops import TorchBuilder, constant_of, erase_unused, tensor_shape, tensor_type
from .written_out import attentions

__all__ = ["KernelAttention", "PlannedAttention", "attention_engine"]


class KernelAttention(Pattern):
    """See the module's docstring."""

    name = "canao.kernel_attention"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # a kernel is code for one instruction set
    after = ("canao.fuse_qkv",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every scaled_dot_product_attention that an engine serves."""
        for op in attentions(module):
            written = "because the model writes it as products and a softmax"
            context.fall_back(op, "attention", written)
        engine = attention_engine(context)
        biases: list[tuple[Any, Any]] = []
        applied = 0
        for op in operations(module, "torch.aten.scaled_dot_product_attention"):
            if engine is None:
                context.fall_back(op, "attention", "because no kernel does it on this CPU")
                continue
            shape = _shape(op)
            reason = "its shape or its mask is unusual" if shape is None else serves(engine, shape)
            if shape is None or reason is not None:
                context.fall_back(op, "attention", f"because {reason}")
                continue
            context.kernels[f"attention {engine.name}"] += 1
            self._replace(context, op, engine, shape, biases)
            applied += 1
        return applied

    def _replace(
        self,
        context: PatternContext,
        op: Any,
        engine: Engine,
        shape: AttentionShape,
        biases: list[tuple[Any, Any]],
    ) -> None:
        build = TorchBuilder(op.location)
        with ir.InsertionPoint(op):
            views = [view_of_heads(build, operand) for operand in list(op.operands)[:3]]
        bias = _bias(build, op, biases)
        kind: Kind = "bf16" if engine.precision == "bf16" else "f32"
        matrices, sources = _sources(views, kind)
        scale = constant_of(op.operands[6])
        planned = PlannedAttention(
            engine=engine,
            shape=shape,
            sources=sources,
            scale=float(scale) if scale is not None else 1.0 / math.sqrt(shape.head_dim),
            bias=None if bias is None else tensor_shape(bias)[0],
            causal=bool(constant_of(op.operands[5])),
        )
        operands = [*matrices, *([] if bias is None else [bias])]
        width = shape.heads * shape.value_dim
        rows = tensor_type((shape.batch, shape.queries, width), "f32")
        with ir.InsertionPoint(op):
            result = plan_op(context, planned, operands, rows, op.location)
            heads = list(op.operands)[:3]
            joined_heads(build, op, result)
        for value in dict.fromkeys(heads):  # each once: keys may be the queries
            erase_unused(value)


@dataclass(frozen=True, kw_only=True)
class PlannedAttention(Planned):
    """Operands: the matrices of ``sources``, then the bias if there is one."""

    engine: Engine
    shape: AttentionShape
    sources: Sources
    scale: float
    bias: tuple[int, ...] | None
    causal: bool

    def wants(self) -> Sequence[Form | None]:
        """See `Planned.wants`."""
        kind: Kind = "bf16" if self.engine.precision == "bf16" else "f32"
        wanted: list[Form | None] = [
            plain(matrix.rows, matrix.width, kind) for matrix in self.sources.matrices
        ]
        return [*wanted, None] if self.bias is not None else wanted

    def offers(self, wanted: Sequence[Form]) -> Sequence[Form]:
        """One bf16 matrix where nobody wants another form."""
        if len(wanted) == 1 and wanted[0].kind == "bf16":
            return wanted
        shape = self.shape
        return [plain(shape.batch * shape.queries, shape.heads * shape.value_dim)]

    def emit(
        self, calls: KernelCalls, operands: Sequence[Sequence[Any]], forms: Sequence[Form]
    ) -> Mapping[Form, Sequence[Any]]:
        """See `Planned.emit`."""
        (form,) = forms
        batch = (1, 1, 1, 1)
        kernel = attention_kernel(
            self.engine,
            self.shape,
            self.sources,
            AttentionForm(
                scale=self.scale,
                bias=None if self.bias is None else (*batch, *self.bias)[-4:],  # type: ignore[arg-type]
                causal=self.causal,
                output=form.kind,
                output_rows=form.padded_rows,
                output_stride=form.stride,
            ),
        )
        arguments = [values[0] for values in operands]
        if self.bias is not None:
            arguments[-1] = calls.builtin(arguments[-1])
        return {form: calls.call(kernel, arguments)}


def attention_engine(context: PatternContext) -> Engine | None:
    """bf16 for the narrow precisions where the core has it, else f32."""
    wanted = ("f32",) if context.precision == "f32" else ("bf16", "f32")
    for precision in wanted:
        found = engines(context.target.features, precision)
        if found:
            return found[0]
    return None


def _shape(op: Any) -> AttentionShape | None:
    """The shape of a plain attention in f32; None for anything else."""
    query, key, value, mask = list(op.operands)[:4]
    if constant_of(op.operands[4]) not in (0, 0.0):
        return None
    shapes = [tensor_shape(operand) for operand in (query, key, value)]
    if any(element != "f32" or len(dims) != 4 for dims, element in shapes):
        return None
    (batch, heads, queries, depth), (keys_batch, kv_heads, keys, _), (*_, width) = (
        dims for dims, _ in shapes
    )
    if keys_batch != batch or heads % kv_heads or shapes[2][0][:3] != shapes[1][0][:3]:
        return None
    if str(mask.type) != "!torch.none" and tensor_shape(mask)[1] not in ("i1", "f32"):
        return None
    return AttentionShape(batch, queries, keys, heads, depth, kv_heads, width)


def _sources(views: Sequence[HeadView], kind: Kind) -> tuple[list[Any], Sources]:
    """The matrices that the views are of, each once, and the views in their numbers."""
    matrices: list[Any] = []
    numbers = []
    for view in views:
        if view.matrix not in matrices:
            matrices.append(view.matrix)
        numbers.append(View(matrices.index(view.matrix), view.column))
    element = "i16" if kind == "bf16" else "f32"
    described = tuple(Matrix(*rows_and_width(matrix), element) for matrix in matrices)
    return matrices, Sources(described, *numbers)


def _bias(build: TorchBuilder, op: Any, known: list[tuple[Any, Any]]) -> Any | None:
    """What is added to the scores, [batch or 1, heads or 1, queries or 1, keys], made once."""
    given = op.operands[3]
    if str(given.type) == "!torch.none":
        return None
    for other, bias in known:
        if other == given:
            return bias
    mask = without_queries(build, given)
    dims, element = tensor_shape(mask)
    shape = (*(1,) * (4 - len(dims)), *dims)
    owner = mask.owner
    at = (
        ir.InsertionPoint.at_block_begin(owner)
        if isinstance(owner, ir.Block)
        else ir.InsertionPoint.after(owner.operation)
    )
    keys = tensor_shape(op.operands[1])[0][2]
    with at:
        bias = mask
        if element == "i1":
            chosen = [mask, build.float(0.0), build.float(-math.inf)]
            bias = build.op("aten.where.Scalar", chosen, tensor_type(dims, "f32"))
        if shape != dims:
            bias = build.op("aten.view", [bias, build.ints(shape)], tensor_type(shape, "f32"))
        if shape[3] != keys:
            full = (*shape[:3], keys)
            operands = [bias, build.ints(full), build.bool(False)]
            bias = build.op("aten.expand", operands, tensor_type(full, "f32"))
    known.append((given, bias))
    return bias
