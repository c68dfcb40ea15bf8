"""64-bit integers become 32-bit ones, for GPUs that have no 64-bit ones.

Before::

    %c = arith.constant 128 : i64
    %p = linalg.generic ... -> tensor<1x128xi64> { arith.addi %a, %b : i64 }
    %i = arith.index_cast %x : i64 to index

After::

    %c = arith.constant 128 : i32
    %p = linalg.generic ... -> tensor<1x128xi32> { arith.addi %a, %b : i32 }
    %i = arith.index_cast %x : i32 to index

Law: arithmetic modulo 2^32 agrees with arithmetic modulo 2^64 wherever the true values fit in
32 bits. Token ids, positions and offsets of a model do: vocabularies and lengths are far
below 2^31. A constant outside the range is clamped to it where it is only a bound (compared
with, or one side of a minimum or maximum): every narrow value lies on the same side of both.
Any other use of such a constant, and a shift by 32 or more, is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from iree.compiler import ir

from ...errors import UnsupportedError
from ...targets import Target
from ..locations import layer_of
from .base import Pattern, PatternContext, Stage, walk

__all__ = ["NarrowIntegers"]

_LOW, _HIGH = -(2**31), 2**31 - 1
_SHIFTS = ("arith.shli", "arith.shrsi", "arith.shrui")
_COMPARISONS = (
    "arith.cmpi",
    "arith.maxsi",
    "arith.maxui",
    "arith.minsi",
    "arith.minui",
)
# Casts that mean nothing once both sides are i32.
_CASTS = ("arith.extsi", "arith.extui", "arith.trunci", "arith.bitcast", "tensor.bitcast")


class NarrowIntegers(Pattern):
    """See the module's docstring. Required where it applies: the target has no i64."""

    name = "canao.narrow_integers"
    stage: Stage = "linalg"
    required = True

    def applies_to(self, target: Target) -> bool:
        """Only targets without 64-bit integers."""
        return not target.has_int64

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Retype every i64 value; returns how many operations changed."""
        return sum(_narrow(op) for op in walk(module.operation))


def _narrow(op: Any) -> bool:
    """Retype one operation. Operands were retyped before: the walk follows program order."""
    changed = False
    for region in op.regions:
        for block in region.blocks:
            for argument in block.arguments:
                changed |= _retype(argument)
    for result in op.results:
        changed |= _retype(result)
    # Other i64 attributes (predicates, offsets, sizes) are not values and keep their type.
    if changed and op.name == "arith.constant":
        op.attributes["value"] = _narrow_constant(op)
    if changed and op.name in _SHIFTS:
        _check_shift(op)
    if op.name in _CASTS and op.operands[0].type == op.results[0].type:
        op.results[0].replace_all_uses_with(op.operands[0])
        op.erase()
        return True
    return changed


def _retype(value: Any) -> bool:
    narrowed = _narrowed(value.type)
    if narrowed is None:
        return False
    value.set_type(narrowed)
    return True


def _narrowed(type_: ir.Type) -> ir.Type | None:
    """The type with i32 for i64; None where there is no i64 in it."""
    i32 = ir.IntegerType.get_signless(32)
    if isinstance(type_, ir.IntegerType):
        return i32 if type_.width == 64 else None
    if isinstance(type_, ir.RankedTensorType):
        element = type_.element_type
        if isinstance(element, ir.IntegerType) and element.width == 64:
            return ir.RankedTensorType.get(type_.shape, i32, type_.encoding)
    return None


def _narrow_constant(op: Any) -> ir.Attribute:
    attribute, type_ = op.attributes["value"], op.results[0].type
    if isinstance(attribute, ir.IntegerAttr):
        values = np.array(attribute.value, dtype=np.int64)
    else:
        values = np.array(attribute, dtype=np.int64)
    inside = np.clip(values, _LOW, _HIGH)
    if (inside != values).any() and not _is_bound(op.results[0]):
        raise UnsupportedError(
            f"arith.constant in {_place(op)} holds {int(values[inside != values].flat[0])}, which "
            "needs 64-bit integers, and the target has none."
        )
    if isinstance(attribute, ir.IntegerAttr):
        return ir.IntegerAttr.get(type_, int(inside))
    shape = ir.RankedTensorType(type_).shape
    narrow = np.ascontiguousarray(inside.astype(np.int32).reshape(shape))
    return ir.DenseElementsAttr.get(narrow, type=type_)


def _is_bound(value: Any) -> bool:
    """Whether every use only compares the value with others."""
    users = [use.owner.operation for use in value.uses]
    return all(user.name in _COMPARISONS for user in users)


def _check_shift(op: Any) -> None:
    amount = op.operands[1].owner
    if isinstance(amount, ir.Block) or amount.operation.name != "arith.constant":
        return
    value = amount.operation.attributes["value"]
    if isinstance(value, ir.IntegerAttr) and value.value >= 32:
        raise UnsupportedError(
            f"{op.name} in {_place(op)} shifts by {value.value}, which needs 64-bit integers, "
            "and the target has none."
        )


def _place(op: Any) -> str:
    return f"layer {layer_of(str(op.location))}"
