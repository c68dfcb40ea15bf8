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

import math
from collections import Counter
from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, parameter_name, tensor_shape, tensor_type

__all__ = ["FuseQKV"]

_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


class FuseQKV(Pattern):
    """See the module's docstring."""

    name = "canao.fuse_qkv"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Join every group of two or more linear layers over one input."""
        groups = [g for g in _groups(module) if _fits(g, context)]
        groups = _without_second_copies(module, groups)
        for group in groups:
            self._join(group, context)
        return len(groups)

    def _join(self, group: list[Any], context: PatternContext) -> None:
        first = group[0]
        source = first.operands[0]
        (*lead, _), element = tensor_shape(source)
        weights = [_name(op.operands[1]) for op in group]
        sizes = [tensor_shape(op.operands[1])[0][0] for op in group]
        build = TorchBuilder(ir.Location.fused([op.location for op in group]))
        with ir.InsertionPoint(first):
            joined = context.parameters.concatenate(weights, axis=0)
            weight = build.parameter(joined.name, joined.shape, element)
            if str(first.operands[2].type) == "!torch.none":
                bias = build.none()
            else:
                names = [_name(op.operands[2]) for op in group]
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


def _groups(module: ir.Module) -> list[list[Any]]:
    """Linear ops with parameter matrices that share input, input width and kind of bias."""
    groups: list[tuple[Any, bool, list[Any]]] = []
    for op in operations(module, "torch.aten.linear"):
        source, weight, bias = op.operands
        biased = str(bias.type) != "!torch.none"
        if parameter_name(weight) is None or (biased and parameter_name(bias) is None):
            continue
        if len(tensor_shape(weight)[0]) != 2:  # a vector: the result has no such dimension
            continue
        for known, known_biased, members in groups:
            if known == source and known_biased == biased:
                members.append(op)
                break
        else:
            groups.append((source, biased, [op]))
    return [members for _, _, members in groups if len(members) > 1]


def _fits(group: list[Any], context: PatternContext) -> bool:
    """Whether the joined weight may be one buffer of the target."""
    limit = context.target.max_storage_buffer_bytes
    sizes = [math.prod(tensor_shape(op.operands[1])[0]) for op in group]
    element = _BYTES.get(tensor_shape(group[0].operands[1])[1], 8)
    return limit is None or sum(sizes) * element <= limit


def _without_second_copies(module: ir.Module, groups: list[list[Any]]) -> list[list[Any]]:
    """Groups whose parameters nothing else reads: else the weights would be stored twice.

    Layers that share all their parameters (ALBERT) form several groups of the same names.
    """
    uses: Counter[str] = Counter()
    for op in operations(module, "torch.operator"):
        name = parameter_name(op.results[0]) if len(op.results) else None
        if name is not None:
            uses[name] += len(list(op.results[0].uses))
    lists = [_parameters(group) for group in groups]
    alike = Counter(lists)
    return [
        group
        for group, names in zip(groups, lists, strict=True)
        if all(uses[name] == alike[names] * names.count(name) for name in names)
    ]


def _parameters(group: list[Any]) -> tuple[str, ...]:
    values = [value for op in group for value in list(op.operands)[1:]]
    return tuple(_name(value) for value in values if str(value.type) != "!torch.none")


def _name(value: Any) -> str:
    name = parameter_name(value)
    assert name is not None  # _groups selects parameters only
    return name
