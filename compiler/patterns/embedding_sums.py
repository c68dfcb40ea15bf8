"""What a model looks up in tables, and the sums that it makes of it.

A look-up is ``aten.embedding`` of a weight or, where `quantize_embeddings` was there before::

    %q = torch.aten.embedding %codes, %ids
    %s = torch.aten.embedding (view %scales), %ids
    %e = torch.aten.mul.Tensor (%q as f32), %s
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from iree.compiler import ir

from .base import walk
from .kernel_calls import only_user
from .torch_ops import constant_of, parameter_name, tensor_shape

__all__ = ["LookUp", "Sum", "look_up", "period_of", "sums_of_look_ups"]

_LOOK_UP = "torch.aten.embedding"
_ADD = "torch.aten.add.Tensor"


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Rows of ``table`` (times their ``scales``) by ``ids``, and the operations that do it."""

    table: Any
    ids: Any
    operations: tuple[Any, ...]
    scales: Any | None = None


@dataclass(kw_only=True)
class Sum:
    """``total``: the tensor; ``addends``: look-ups and at most one other tensor, each with the
    tensor it is, in the order in which they are added; ``operations``: what makes them a sum."""

    total: Any
    addends: list[tuple[Any, LookUp | None]]
    operations: list[Any] = field(default_factory=list)

    @property
    def look_ups(self) -> list[LookUp]:
        """Those of the addends that are look-ups."""
        return [found for _, found in self.addends if found is not None]


def sums_of_look_ups(module: ir.Module) -> list[Sum]:
    """The largest sums with a look-up in them, one of it alone among them; in program order."""
    found: dict[Any, Sum] = {}
    for op in walk(module.operation):
        if op.name == _ADD:
            _join(op, found)
        elif op.name in (_LOOK_UP, "torch.aten.mul.Tensor"):
            value = op.results[0]
            one = look_up(value)
            if one is not None:
                found[value] = Sum(total=value, addends=[(value, one)])
    return list(found.values())


def look_up(value: Any) -> LookUp | None:
    """The look-up in a weight of f32, whole or in codes, that a tensor is."""
    op = value.owner.operation
    if op.name == _LOOK_UP:
        return _plain(op)
    one, other = map(_owner, list(op.operands)[:2])
    if one is None or other is None or one.name != "torch.aten.to.dtype":
        return None
    codes = _owner(one.operands[0])
    if codes is None or {codes.name, other.name} != {_LOOK_UP}:
        return None
    column = _owner(other.operands[0])
    if (
        column is None
        or column.name != "torch.aten.view"
        or codes.operands[1] != other.operands[1]
    ):
        return None
    table, ids, scales = *list(codes.operands)[:2], column.operands[0]
    if _kind(table) != (2, "si8") or _kind(scales) != (1, "f32") or not _indexes(ids):
        return None
    return LookUp(table=table, ids=ids, scales=scales, operations=(codes, one, other, op))


def period_of(shape: tuple[int, ...], total: tuple[int, ...]) -> int | None:
    """How many rows of [.., N] repeat to give the rows of ``total``; None where they do not."""
    full = (*(1,) * (len(total) - len(shape)), *shape)
    start = next((place for place, size in enumerate(full) if size != 1), len(full) - 1)
    return math.prod(full[start:-1]) if full[start:] == total[start:] else None


def _join(op: Any, found: dict[Any, Sum]) -> None:
    """Note that ``op`` adds to a sum, where it does."""
    left, right, alpha = list(op.operands)
    if constant_of(alpha) != 1 or left == right:
        return
    parts = [_part(left, found), _part(right, found)]
    parts.sort(key=lambda part: len(part.addends) == 1)  # a + b is b + a
    first, second = parts
    if len(second.addends) > 1:
        second = Sum(total=second.total, addends=[(second.total, None)])
    addends = [*first.addends, *second.addends]
    total, element = tensor_shape(op.results[0])
    shapes = [tensor_shape(part.total) for part in parts]
    if not all(kind == element == "f32" and period_of(dims, total) for dims, kind in shapes):
        return
    if len(addends) - 1 > sum(known is not None for _, known in addends):
        return
    joined = Sum(
        total=op.results[0],
        addends=addends,
        operations=[*first.operations, *second.operations, op],
    )
    if joined.look_ups:
        found[joined.total] = joined
        for part in (first, second):
            if part.look_ups:
                del found[part.total]


def _part(value: Any, found: dict[Any, Sum]) -> Sum:
    """What is known of an operand that nobody else reads; else that it is an addend."""
    known = found.get(value) if only_user(value) is not None else None
    return known or Sum(total=value, addends=[(value, None)])


def _plain(op: Any) -> LookUp | None:
    table, ids = list(op.operands)[:2]
    if _kind(table) != (2, "f32") or not _indexes(ids):
        return None
    return LookUp(table=table, ids=ids, operations=(op,))


def _kind(value: Any) -> tuple[int, str] | None:
    """How many dimensions a parameter has, and its element; None for what is none."""
    if parameter_name(value) is None:
        return None
    dims, element = tensor_shape(value)
    return len(dims), element


def _indexes(value: Any) -> bool:
    return tensor_shape(value)[1] in ("si32", "si64")


def _owner(value: Any) -> Any | None:
    return None if isinstance(value.owner, ir.Block) else value.owner.operation
