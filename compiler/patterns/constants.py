"""What tensors of integers are known to be, where a model computes them from numbers alone.

Before: ``%p = slice (add.Scalar (arange 0, 128), 2)``. After: the array 2, 3, ..., 129.

Positions and the parts of masks that depend on no input are spelled out in this way, and a
pattern that knows them reads a slice in place of looking up, or nothing at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from iree.compiler import ir

from .torch_ops import constant_of, tensor_shape

__all__ = ["constant_array", "depends_on_inputs"]

_Array = np.ndarray[Any, Any]


def constant_array(value: Any) -> _Array | None:
    """The integers or booleans of a torch tensor; None where they are not known."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    op = owner.operation
    read = _READERS.get(op.name)
    return None if read is None else read(op)


def depends_on_inputs(value: Any) -> bool:
    """Whether an argument of the function has a part in a value."""
    pending, seen = [value], {value}
    while pending:
        owner = pending.pop().owner
        if isinstance(owner, ir.Block):
            return True
        fresh = [operand for operand in owner.operation.operands if operand not in seen]
        pending += fresh
        seen.update(fresh)
    return False


def _literal(op: Any) -> _Array | None:
    attribute = op.attributes["value"]
    if not isinstance(attribute, ir.DenseIntElementsAttr):
        return None
    return np.array(attribute).reshape(_shape(op))


def _sliced(op: Any) -> _Array | None:
    found = constant_array(op.operands[0])
    numbers = [constant_of(operand) for operand in list(op.operands)[1:]]
    if found is None or None in numbers:
        return None
    dim, *limits = (int(number) for number in numbers if number is not None)
    places = [slice(None)] * found.ndim
    places[dim] = slice(*limits)
    return found[tuple(places)]


def _reshaped(op: Any) -> _Array | None:
    found = constant_array(op.operands[0])
    return None if found is None else found.reshape(_shape(op))


def _expanded(op: Any) -> _Array | None:
    found = constant_array(op.operands[0])
    return None if found is None else np.broadcast_to(found, _shape(op))


def _range(op: Any) -> _Array | None:
    limits = [constant_of(operand) for operand in list(op.operands)[:3]]
    if not all(isinstance(number, int) for number in limits):
        return None
    return np.arange(*(int(number) for number in limits if number is not None))


def _filled(op: Any) -> _Array | None:
    number = op.operands[1]
    owner = number.owner
    if not isinstance(owner, ir.Block) and owner.operation.name == "torch.aten.Int.bool":
        number = owner.operation.operands[0]
    found = constant_of(number)
    if found is None or tensor_shape(op.results[0])[1] not in ("i1", "si32", "si64"):
        return None
    return np.full(_shape(op), found)


def _shifted(op: Any) -> _Array | None:
    found, more, times = constant_array(op.operands[0]), *map(constant_of, list(op.operands)[1:])
    if found is None or not (isinstance(more, int) and isinstance(times, int)):
        return None
    return found + more * times


def _at_least(op: Any) -> _Array | None:
    found, limit = constant_array(op.operands[0]), constant_of(op.operands[1])
    return None if found is None or limit is None else np.asarray(found >= limit)


def _both(op: Any) -> _Array | None:
    one, other = map(constant_array, op.operands)
    return None if one is None or other is None else np.asarray(one & other)


def _shape(op: Any) -> tuple[int, ...]:
    return tensor_shape(op.results[0])[0]


_READERS = {
    "torch.vtensor.literal": _literal,
    "torch.aten.slice.Tensor": _sliced,
    "torch.aten.view": _reshaped,
    "torch.aten.unsqueeze": _reshaped,
    "torch.aten.expand": _expanded,
    "torch.aten.arange.start_step": _range,
    "torch.aten.full_like": _filled,
    "torch.aten.add.Scalar": _shifted,
    "torch.aten.ge.Scalar": _at_least,
    "torch.aten.bitwise_and.Tensor": _both,
}
