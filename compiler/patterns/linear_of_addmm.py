"""A product with a weight [depth, outputs] becomes a linear layer (GPT-2 writes all of its so).

Before::

    %a = torch.aten.view %x, [rows, depth]
    %s = torch.aten.addmm %b, %a, %w, 1, 1                 %w: [depth, outputs]
    %y = torch.aten.view %s, [.., outputs]

After::

    %y = torch.aten.linear %x, %wt, %b                     %wt: [outputs, depth], derived

Law: b + x w = x (w^T)^T + b; views of leading dimensions commute with a product over the last.
What follows then sees one kind of layer.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import only_user
from .torch_ops import (
    TorchBuilder,
    constant_of,
    erase_unused,
    parameter_name,
    tensor_shape,
    tensor_type,
)

__all__ = ["LinearOfAddmm"]


class LinearOfAddmm(Pattern):
    """See the module's docstring."""

    name = "canao.linear_of_addmm"
    stage: Stage = "torch"
    after = ("canao.strip_copies",)
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every product of f32 with a weight of the model, plus a bias."""
        applied = 0
        for op in operations(module, "torch.aten.addmm"):
            if _fits(op):
                _replace(op, context)
                applied += 1
        return applied


def _fits(op: Any) -> bool:
    bias, matrix, weight, beta, alpha = op.operands
    if parameter_name(weight) is None or constant_of(beta) != 1 or constant_of(alpha) != 1:
        return False
    outputs = tensor_shape(weight)[0][1]
    elements = {tensor_shape(value)[1] for value in (bias, matrix, weight)}
    return elements == {"f32"} and tensor_shape(bias)[0] == (outputs,)


def _replace(op: Any, context: PatternContext) -> None:
    bias, matrix, weight, *_ = op.operands
    name = parameter_name(weight)
    assert name is not None  # _fits sees to it
    depth, outputs = tensor_shape(weight)[0]
    turned = context.parameters.derive(
        "transposed", [name], shape=(outputs, depth), dtype=context.parameters[name].dtype
    )
    source, last = _around(op, depth, outputs)
    build = TorchBuilder(op.location)
    with ir.InsertionPoint(last):
        parameter = build.parameter(turned.name, turned.shape, "f32")
        result = build.op("aten.linear", [source, parameter, bias], last.results[0].type)
    last.results[0].replace_all_uses_with(result)
    for absorbed in dict.fromkeys((last, op)):
        absorbed.erase()
    erase_unused(matrix)


def _around(op: Any, depth: int, outputs: int) -> tuple[Any, Any]:
    """What the product reads and the operation that gives its result, views left out where both
    are of the same leading dimensions."""
    matrix = op.operands[1]
    before, after = getattr(matrix.owner, "operation", None), only_user(op.results[0])
    if before is None or after is None or {before.name, after.name} != {"torch.aten.view"}:
        return matrix, op
    source = before.operands[0]
    shape, element = tensor_shape(source)
    wanted = tensor_type((*shape[:-1], outputs), element)
    if shape[-1:] != (depth,) or after.results[0].type != wanted:
        return matrix, op
    return source, after
