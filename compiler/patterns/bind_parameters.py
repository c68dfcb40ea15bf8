"""Placeholders become loads of globals that the runtime fills from the file of weights.

Before::

    %w = torch.operator "torch.canao.parameter"() {canao.name = "pooler.dense.weight"}

After::

    util.global private @"weight:pooler.dense.weight"
        = #flow.parameter.named<"model"::"pooler.dense.weight"> : tensor<384x384xf32>
    %g = util.global.load @"weight:pooler.dense.weight" : tensor<384x384xf32>
    %w = torch_c.from_builtin_tensor %g

Law: a name for a value. The globals are immutable, so what depends on them alone (packing a
weight for the matrix-product path) is hoisted out of the function and done once, at load.
"""

from __future__ import annotations

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import parameter_name, tensor_shape

__all__ = ["SCOPE", "BindParameters"]

SCOPE = "model"
# Keeps a parameter that is called like a function ("main") apart from it.
_PREFIX = "weight:"


class BindParameters(Pattern):
    """See the module's docstring. Required: a placeholder has no lowering."""

    name = "canao.bind_parameters"
    stage: Stage = "torch"
    required = True
    after = (
        "canao.fuse_qkv",
        "canao.split_heads",
        "canao.decompose_attention",
        "canao.quantize_embeddings",
        "canao.emit_kernels",
        "canao.quantize_linear",
        "canao.narrow_linear",
    )

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Bind every placeholder; the same name is bound to one global."""
        bound: set[str] = set()
        for op in operations(module, "torch.operator"):
            name = parameter_name(op.results[0]) if len(op.results) else None
            if name is None:
                continue
            if not list(op.results[0].uses):  # another pattern has replaced it
                op.erase()
                continue
            shape, element = tensor_shape(op.results[0])
            dims = "".join(f"{d}x" for d in shape)
            # The torch dialect spells signs (si8); builtin tensors have none.
            type_ = ir.Type.parse(f"tensor<{dims}{element.removeprefix('s')}>")
            if name not in bound:
                bound.add(name)
                declaration = ir.Operation.parse(
                    f'util.global private @"{_PREFIX}{name}" = '
                    f'#flow.parameter.named<"{SCOPE}"::"{name}"> : {type_}'
                )
                ir.InsertionPoint.at_block_begin(module.body).insert(declaration)
            with ir.InsertionPoint(op), op.location:
                symbol = ir.FlatSymbolRefAttr.get(_PREFIX + name)
                load = ir.Operation.create(
                    "util.global.load", results=[type_], attributes={"global": symbol}
                )
                tensor = ir.Operation.create(
                    "torch_c.from_builtin_tensor",
                    results=[op.results[0].type],
                    operands=[load.result],
                )
            op.results[0].replace_all_uses_with(tensor.result)
            op.erase()
        return len(bound)
