"""Linear layers that read the same input become one.

Before::

    %q = torch.aten.linear %x, %wq, %bq      [.., Nq]
    %k = torch.aten.linear %x, %wk, %bk      [.., Nk]
    %v = torch.aten.linear %x, %wv, %bv      [.., Nv]

After::

    %y = torch.aten.linear %x, [wq; wk; wv], [bq; bk; bv]      [.., Nq+Nk+Nv]
    %q, %k, %v = slices of %y along its last dimension

Law: distributivity of a matrix product over the concatenation of its columns,
x [W1; W2]^T = [x W1^T, x W2^T]. One wide product reads the input once, fills the core's tiles
better and replaces three dispatches. The joined weights are derived parameters: made once,
when the bundle is written. It is not for Q, K and V alone: gate and up projections of a
gated feed-forward network have the same form.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, parameter_name, tensor_shape, tensor_type

__all__ = ["FuseQKV"]


class FuseQKV(Pattern):
    """See the module's docstring."""

    name = "canao.fuse_qkv"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Join every group of two or more linear layers over one input."""
        applied = 0
        for group in self._groups(module):
            self._join(group, context)
            applied += 1
        return applied

    def _groups(self, module: ir.Module) -> list[list[Any]]:
        """Linear ops with parameter weights that share input, block and kind of bias."""
        groups: list[tuple[Any, bool, list[Any]]] = []
        for op in operations(module, "torch.aten.linear"):
            source, weight, bias = op.operands
            biased = str(bias.type) != "!torch.none"
            if parameter_name(weight) is None or (biased and parameter_name(bias) is None):
                continue
            for known, known_biased, members in groups:
                if known == source and known_biased == biased:
                    members.append(op)
                    break
            else:
                groups.append((source, biased, [op]))
        found = []
        for _, _, members in groups:
            widths = {tensor_shape(op.operands[1])[0][1:] for op in members}
            if len(members) > 1 and len(widths) == 1:
                found.append(members)
        return found

    def _join(self, group: list[Any], context: PatternContext) -> None:
        first = group[0]
        source = first.operands[0]
        (*lead, _), element = tensor_shape(source)
        weights = [self._name(op.operands[1]) for op in group]
        sizes = [tensor_shape(op.operands[1])[0][0] for op in group]
        build = TorchBuilder(ir.Location.fused([op.location for op in group]))
        with ir.InsertionPoint(first):
            joined = context.parameters.concatenate(weights, axis=0)
            weight = build.parameter(joined.name, joined.shape, element)
            if str(first.operands[2].type) == "!torch.none":
                bias = build.none()
            else:
                names = [self._name(op.operands[2]) for op in group]
                joined = context.parameters.concatenate(names, axis=0)
                bias = build.parameter(joined.name, joined.shape, element)
            wide = build.op(
                "aten.linear", [source, weight, bias], tensor_type((*lead, sum(sizes)), element)
            )
            start = 0
            for op, size in zip(group, sizes, strict=True):
                part = build.op(
                    "aten.slice.Tensor",
                    [wide, build.int(-1), build.int(start), build.int(start + size), build.int(1)],
                    op.results[0].type,
                )
                op.results[0].replace_all_uses_with(part)
                start += size
        for op in group:
            op.erase()

    def _name(self, value: Any) -> str:
        name = parameter_name(value)
        assert name is not None  # _groups selects parameters only
        return name
