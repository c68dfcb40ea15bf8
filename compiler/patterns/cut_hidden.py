"""Neurons between linear layers that nobody reads, or that never change, are cut away.

Before::

    %h = torch.aten.linear %x, %w1, %b1           rows of %w1 are zero, or
    %a = torch.aten.gelu %h                       columns of %w2 are
    %y = torch.aten.linear %a, %w2, %b2

After::

    %h = torch.aten.linear %x, %w1[kept], %b1[kept]
    %a = torch.aten.gelu %h
    %y = torch.aten.linear %a, %w2[:, kept], %b2 + %w2[:, others] gelu(%b1[others])

Law: y = sum over i of w2[:, i] act(w1[i] x + b1[i]) + b2. Where w2[:, i] is zero the term is;
where w1[i] is zero it does not depend on x, so it belongs to the bias. Between the layers may
stand any element-wise operations, also of several layers (a gate and what it lets through), and
several layers may read; then only neurons go that none of them reads. Both products shrink, and
nothing is gathered. What is kept is filled up to whole tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from iree.compiler import ir

from .activations import activation_of
from .base import Pattern, PatternContext, Stage, operations
from .cut_weights import Meeting, idle_of, is_plain_linear
from .kernel_calls import rows_and_width
from .kernel_sparse import sparse_cost
from .torch_ops import TorchBuilder, parameter_name, tensor_shape, tensor_type

__all__ = ["CutHidden", "better_sparse"]

_ELEMENTWISE = (
    "torch.aten.gelu",
    "torch.aten.relu",
    "torch.aten.silu",
    "torch.aten.tanh",
    "torch.aten.sigmoid",
    "torch.aten.neg",
    "torch.aten.mul.Tensor",
    "torch.aten.mul.Scalar",
    "torch.aten.add.Tensor",
    "torch.aten.add.Scalar",
    "torch.aten.sub.Tensor",
    "torch.aten.sub.Scalar",
    "torch.aten.div.Scalar",
    "torch.aten.pow.Tensor_Scalar",
)


class CutHidden(Pattern):
    """See the module's docstring."""

    name = "canao.cut_hidden"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Cut between all layers that have something to cut; returns how many neurons went."""
        if not context.idle:
            return 0
        applied = 0
        for op in operations(module, "torch.aten.linear"):
            found = _between(op)
            if found is not None and found.readers[0] == op:
                applied += _cut(context, found)
        return applied


@dataclass(frozen=True)
class _Between:
    """Layers that make hidden values, what happens to them, and the layers that read them."""

    makers: list[Any]
    others: list[Any]
    readers: list[Any]

    @property
    def layers(self) -> list[Any]:
        """All layers."""
        return [*self.makers, *self.readers]


def _between(reader: Any) -> _Between | None:
    """What stands before ``reader``, where it reads hidden values that nothing else reads."""
    top = reader.operands[0]
    readers = [use.owner.operation for use in top.uses]
    if any(use.operand_number for use in top.uses) or not all(map(is_plain_linear, readers)):
        return None
    makers: list[Any] = []
    others: list[Any] = []
    pending = [top]
    while pending:
        value = pending.pop()
        if isinstance(value.owner, ir.Block) or value.type != top.type:
            return None
        op = value.owner.operation
        if op in makers or op in others:
            continue
        if is_plain_linear(op) and _is_parameter(op.operands[2]):
            makers.append(op)
        elif op.name in _ELEMENTWISE:
            others.append(op)
            pending += [v for v in op.operands if str(v.type).startswith("!torch.vtensor")]
        else:
            return None
    inner = [op for op in (*makers, *others) if op != top.owner.operation]
    if any(use.owner.operation not in others for op in inner for use in op.results[0].uses):
        return None
    in_order = operations(reader.block.owner, "torch.aten.linear")
    return _Between(makers, others, [op for op in in_order if op in readers])


def _cut(context: PatternContext, found: _Between) -> int:
    activation = _activation(found)
    size = tensor_shape(found.readers[0].operands[0])[0][-1]
    meeting = Meeting(
        context=context,
        size=size,
        readers=tuple(_name(op.operands[1]) for op in found.readers),
        maker=_name(found.makers[0].operands[1]) if activation else "",
    )
    kept = meeting.kept
    products = [(_name(op.operands[1]), rows_and_width(op.operands[0])[0]) for op in found.layers]
    if kept == size or better_sparse(context, products, kept / size):
        return 0
    for op in found.readers:
        _set(context, op, 2, _reader_bias(context, op, found.makers[0], meeting, activation))
    for op in found.readers:
        _set(context, op, 1, meeting.cut(_name(op.operands[1]), 1))
    for op in found.makers:
        _set(context, op, 1, meeting.cut(_name(op.operands[1]), 0))
        if str(op.operands[2].type) != "!torch.none":
            _set(context, op, 2, meeting.cut(_name(op.operands[2]), 0))
    for op in (*found.makers, *found.others):
        (*lead, _), element = tensor_shape(op.results[0])
        op.results[0].set_type(tensor_type((*lead, kept), element))
    context.notes.append(f"{', '.join(meeting.readers)}: {kept} of {size} inputs are computed.")
    return size - kept


def better_sparse(
    context: PatternContext, products: Iterable[tuple[str, int]], part: float
) -> bool:
    """Whether leaving out blocks of zeros is faster than cutting to ``part`` of the neurons, in
    ``products``: weights and numbers of rows."""
    cut = sparse = 0.0
    for name, rows in products:
        work = math.prod(context.parameters[name].shape)
        cut += part * work
        sparse += sparse_cost(context, name, rows) * work
    return sparse < cut


def _reader_bias(
    context: PatternContext, reader: Any, maker: Any, meeting: Meeting, activation: str
) -> str:
    """The bias with what idle neurons add to it; "" where it stays."""
    weight = _name(reader.operands[1])
    bias, constant = reader.operands[2], maker.operands[2]
    changed = idle_of(context, meeting.maker).outputs & ~idle_of(context, weight).inputs
    if not activation or not changed or str(constant.type) == "!torch.none":
        return ""
    biases = [constant] if str(bias.type) == "!torch.none" else [constant, bias]
    sources = [idle_of(context, weight).weight, *meeting.weights, *map(_name, biases)]
    outputs = tensor_shape(reader.operands[1])[0][0]
    return meeting.derive("constant_part", sources, outputs, activation=activation)


def _activation(found: _Between) -> str:
    """What one maker's values go through, where `cutting.constant_part` knows it; else ""."""
    if len(found.makers) != 1 or len(found.others) > 1:
        return ""
    if not all(_is_parameter(op.operands[2]) for op in found.readers):
        return ""
    return activation_of(found.others[0]) or "" if found.others else "none"


def _set(context: PatternContext, op: Any, place: int, name: str) -> None:
    """Let an operation read the parameter ``name`` (if not "")."""
    if name:
        with ir.InsertionPoint(op):
            shape = context.parameters[name].shape
            op.operands[place] = TorchBuilder(op.location).parameter(name, shape, "f32")


def _is_parameter(value: Any) -> bool:
    return str(value.type) == "!torch.none" or parameter_name(value) is not None


def _name(value: Any) -> str:
    name = parameter_name(value)
    assert name is not None  # _between selects parameters only
    return name
