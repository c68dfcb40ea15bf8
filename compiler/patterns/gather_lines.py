"""Products without the inputs and the outputs of zeros that a matrix has whole.

Before::

    %y = torch.aten.linear %x, %w, %b           columns of %w are zero

After::

    %g = linalg.generic: %g[m, i] = %x[m, kept[i]]
    %y = torch.aten.linear %g, %w[:, kept], %b

and likewise, where rows of %w are zero::

    %t = torch.aten.linear %x, %w[kept], none
    %y = linalg.generic: %y[m, n] = (%t[m, rank[n]] where n is kept, else 0) + %b[n]

Law: a term of a sum that is multiplied by zero can be left out; a sum without terms is zero. All
layers that read %x share one %g, of the inputs that any of them needs. Where `cut_hidden` could
let the producer leave the values out, it has, and nothing is left here to pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

from ..kernels.choosing.choices import chosen_engine, chosen_for_zeros
from ..kernels.choosing.problem import Problem
from ..kernels.choosing.zeros import WHOLE
from ..kernels.engines.base import Engine
from ..kernels.engines.registry import engine_for
from ..kernels.gather_choice import expanded_cost, gathered_cost
from ..kernels.picking import Pick
from ..kernels.product import ProductShape
from ..kernels.sparse_choice import SparseEngine
from .activations import activation_of
from .base import Pattern, PatternContext, Stage, operations
from .cut_weights import Meeting, is_plain_linear
from .kernel_calls import KernelCalls, only_user, rows_and_width
from .kernel_sparse import sparse_cost, zeros_in
from .linalg_text import MAPS, splice, tensor
from .product_weights import note_unmeasured, precision_of
from .torch_ops import TorchBuilder, parameter_name, tensor_shape, tensor_type

__all__ = ["GatherLines", "expanded", "gathered"]

_LEAST_GAIN = 1.1


class GatherLines(Pattern):
    """See the module's docstring."""

    name = "canao.gather_lines"
    stage: Stage = "torch"
    after = ("canao.cut_hidden",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Pick inputs, and put outputs in their places, wherever that is faster."""
        if not context.idle:
            return 0
        applied = 0
        groups: list[tuple[Any, list[Any]]] = []
        for op in filter(is_plain_linear, operations(module, "torch.aten.linear")):
            source = op.operands[0]
            known = next((ops for value, ops in groups if value == source), None)
            if known is None:
                groups.append((source, known := []))
            known.append(op)
        for source, ops in groups:
            applied += _gather(module, context, source, ops)
        for _, ops in groups:
            applied += sum(_expand(module, context, op) for op in ops)
        return applied


def gathered(context: PatternContext, readers: tuple[str, ...], rows: int) -> Meeting | None:
    """The inputs of ``readers``, which read the same rows, where it is faster to pick those that
    have weights; else None."""
    size = context.parameters[readers[0]].shape[1]
    meeting = Meeting(context=context, size=size, readers=readers)
    if meeting.kept == size:
        return None
    outputs = sum(context.parameters[name].shape[0] for name in readers)
    part = meeting.kept / size
    measured = _measured(context, readers, ProductShape(rows, size, outputs))
    if measured is not None:
        return meeting if measured == "gathered" else None
    cost = gathered_cost(_dense(context, readers[0], rows), size, outputs, part)
    return meeting if _pays(context, readers, rows, cost) else None


def expanded(context: PatternContext, name: str, rows: int) -> Meeting | None:
    """The outputs of a layer without activation, where it is faster to compute those that have
    weights and put them in their places; else None."""
    size, depth = context.parameters[name].shape
    meeting = Meeting(context=context, size=size, maker=name)
    if meeting.kept == size:
        return None
    cost = expanded_cost(_dense(context, name, rows), depth, size, meeting.kept / size)
    return meeting if _pays(context, (name,), rows, cost) else None


def _measured(
    context: PatternContext, readers: Sequence[str], shape: ProductShape
) -> SparseEngine | str | None:
    """How weights whose zeros are whole inputs are multiplied fastest, as measured; None where
    nobody did."""
    (zeros, *others) = {zeros_in(context, name) for name in readers}
    precision = precision_of(context, readers[0])
    if zeros is None or others or zeros.panel not in WHOLE:
        return None
    if engine_for(context.target.features, precision, 1, 1) is None:
        return None
    problem = Problem(precision, shape.rows, shape.depth, shape.outputs, zeros.panel, zeros.kept)
    note_unmeasured(context, problem)
    return chosen_for_zeros(context.choices, precision, shape, zeros)


def _gather(module: ir.Module, context: PatternContext, source: Any, ops: list[Any]) -> int:
    rows, size = rows_and_width(source)
    meeting = gathered(context, tuple(map(_name, ops)), rows)
    if meeting is None:
        return 0
    kept = meeting.kept
    places = meeting.derive("kept_places", meeting.weights, kept, size=size)
    calls = KernelCalls(module, context, ops[0].location)
    (*lead, _), element = tensor_shape(source)
    with ir.InsertionPoint(ops[0]):
        arguments = [calls.matrix(source), calls.parameter(context.parameters[places])]
        result = splice(Pick(rows, size, kept).declaration(), arguments, ops[0].location, ops[0])
        narrow = calls.restored(result, tensor_type((*lead, kept), element))
    for op in ops:
        name = meeting.cut(_name(op), 1)
        with ir.InsertionPoint(op):
            op.operands[1] = TorchBuilder(op.location).parameter(
                name, context.parameters[name].shape, element
            )
        op.operands[0] = narrow
    context.notes.append(
        f"{', '.join(meeting.readers)}: {kept} of {size} inputs have weights and are picked."
    )
    return 1


def _expand(module: ir.Module, context: PatternContext, op: Any) -> int:
    source, _, bias = op.operands
    biased = str(bias.type) != "!torch.none"
    user = only_user(op.results[0])
    if user is not None and activation_of(user) is not None:
        return 0  # a kernel applies it to sums that it has at hand
    name = _name(op)
    rows, _ = rows_and_width(source)
    meeting = expanded(context, name, rows)
    if meeting is None:
        return 0
    kept, size = meeting.kept, meeting.size
    ranks = meeting.derive("kept_ranks", meeting.weights, size, size=size)
    (*lead, _), element = tensor_shape(op.results[0])
    location = op.location
    calls = KernelCalls(module, context, location)
    with ir.InsertionPoint(op):
        build = TorchBuilder(location)
        cut = meeting.cut(name, 0)
        weight = build.parameter(cut, context.parameters[cut].shape, element)
        narrow = build.op(
            "aten.linear", [source, weight, build.none()], tensor_type((*lead, kept), element)
        )
        arguments = [calls.matrix(narrow), calls.parameter(context.parameters[ranks])]
        arguments += [calls.builtin(bias)] if biased else []
        text = _placed(rows, kept, size, biased=biased)
        result = splice(text, arguments, location, op)
        op.results[0].replace_all_uses_with(calls.restored(result, op.results[0].type))
    op.erase()
    context.notes.append(f"{name}: {kept} of {size} outputs have weights and are computed.")
    return 1


def _pays(context: PatternContext, names: tuple[str, ...], rows: int, cost: float) -> bool:
    """Whether ``cost`` is below that of the dense products, and of those by blocks."""
    sizes = [context.parameters[name].shape[0] for name in names]
    others = sum(
        sparse_cost(context, name, rows) * size for name, size in zip(names, sizes, strict=True)
    )
    return cost * _LEAST_GAIN < others / sum(sizes)


def _dense(context: PatternContext, name: str, rows: int) -> Engine | None:
    """The engine that the rules compare with: one of f32 where none does the product."""
    if context.target.kind != "cpu":
        return None
    features = context.target.features
    outputs, depth = context.parameters[name].shape
    found = chosen_engine(
        context.choices,
        features,
        precision_of(context, name),
        ProductShape(rows, depth, outputs),
    )
    return found if isinstance(found, Engine) else engine_for(features, "f32", outputs, rows)


def _name(op: Any) -> str:
    name = parameter_name(op.operands[1])
    assert name is not None  # is_plain_linear sees to it
    return name


def _placed(rows: int, kept: int, size: int, *, biased: bool) -> str:
    x, y = tensor("f32", rows, kept), tensor("f32", rows, size)
    ranks, bias = tensor("i32", size), tensor("f32", size)
    return f"""{MAPS}
func.func @place(%x: {x}, %ranks: {ranks}{f", %bias: {bias}" if biased else ""}) -> {y} {{
  %none = arith.constant 0 : i32
  %zero = arith.constant 0.0 : f32
  %unset = tensor.empty() : {y}
  %y = linalg.generic {{indexing_maps = [#column, {"#column, " if biased else ""}#cell],
      iterator_types = ["parallel", "parallel"]}}
      ins(%ranks{", %bias" if biased else ""} : {ranks}{f", {bias}" if biased else ""})
      outs(%unset : {y}) {{
  ^bb0(%rank: i32, {"%more: f32, " if biased else ""}%out: f32):
    %row = linalg.index 0 : index
    %within = arith.maxsi %rank, %none : i32
    %at = arith.index_cast %within : i32 to index
    %sum = tensor.extract %x[%row, %at] : {x}
    %stays = arith.cmpi sge, %rank, %none : i32
    %value = arith.select %stays, %sum, %zero : f32
    {"%whole = arith.addf %value, %more : f32" if biased else ""}
    linalg.yield {"%whole" if biased else "%value"} : f32
  }} -> {y}
  return %y : {y}
}}
"""
