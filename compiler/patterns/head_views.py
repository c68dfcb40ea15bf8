"""Heads as columns of a matrix: following reshapes back to it, and forward from it.

[B,H,S,D] is a view of the matrix [B,S,W] from column c on, where element (b,h,s,d) is the
matrix's (b, s, c + h*D + d). Models write that as slice, view and permute, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .kernel_calls import only_user
from .torch_ops import TorchBuilder, constant_of, integers_of, tensor_shape, tensor_type

__all__ = ["HeadView", "joined_heads", "view_of_heads"]

_SWAPPED = [0, 2, 1, 3]
_RESHAPES = ("torch.aten.permute", "torch.aten.transpose.int", "torch.aten.view")


@dataclass(frozen=True)
class HeadView:
    """A torch tensor [B,S,W] and the column of the first head in it."""

    matrix: Any
    column: int


def view_of_heads(build: TorchBuilder, value: Any) -> HeadView:
    """Where [B,H,S,D] comes from; if it is no view of a matrix, it is made one by a copy."""
    (batch, heads, length, depth), element = tensor_shape(value)
    rows = (batch, length, heads, depth)
    flat = (batch, length, heads * depth)
    swapped = _swapped(_through_views(value))
    if swapped is not None:
        joined = _joined(_through_views(swapped), flat)
        if joined is not None:
            return _sliced(joined)
    order = build.ints(_SWAPPED)
    swapped = build.op("aten.permute", [value, order], tensor_type(rows, element))
    return HeadView(
        build.op("aten.view", [swapped, build.ints(flat)], tensor_type(flat, element)), 0
    )


def joined_heads(build: TorchBuilder, op: Any, matrix: Any) -> None:
    """Give the readers of ``op``'s result [B,H,S,D] the ``matrix`` [B,S,H*D] it is a view of."""
    result = op.results[0]
    (batch, heads, length, depth), element = tensor_shape(result)
    chain = _join_chain(op, tensor_shape(matrix)[0])
    if chain:
        chain[-1].results[0].replace_all_uses_with(matrix)
        for absorbed in reversed(chain):
            absorbed.erase()
    else:
        rows = (batch, length, heads, depth)
        apart = build.op("aten.view", [matrix, build.ints(rows)], tensor_type(rows, element))
        order = build.ints(_SWAPPED)
        result.replace_all_uses_with(build.op("aten.permute", [apart, order], result.type))
    op.erase()


def _join_chain(op: Any, flat: tuple[int, ...]) -> list[Any]:
    """The operations from the heads' permutation to the view as ``flat``; empty if there is
    another reader or another form on the way."""
    chain: list[Any] = []
    value = op.results[0]
    swapped = False
    while True:
        user = only_user(value)
        if user is None or user.name not in _RESHAPES:
            return []
        chain.append(user)
        result = user.results[0]
        if not swapped and _swapped(result) is not None:
            swapped = True
        elif user.name != "torch.aten.view":
            return []
        elif swapped and tensor_shape(result)[0] == flat:
            return chain
        elif result.type != value.type:
            return []
        value = result


def _owner(value: Any, name: str) -> Any | None:
    owner = value.owner
    operation = getattr(owner, "operation", None)
    return operation if operation is not None and operation.name == name else None


def _through_views(value: Any) -> Any:
    """What a value is a view of, in the same shape."""
    while True:
        op = _owner(value, "torch.aten.view")
        if op is None or op.operands[0].type != value.type:
            return value
        value = op.operands[0]


def _swapped(value: Any) -> Any | None:
    """What a value is with its second and third dimensions exchanged."""
    op = _owner(value, "torch.aten.permute")
    if op is not None:
        return op.operands[0] if integers_of(op.operands[1]) == _SWAPPED else None
    op = _owner(value, "torch.aten.transpose.int")
    if op is None or len(tensor_shape(value)[0]) != 4:
        return None
    dims = sorted(int(constant_of(operand) or 0) % 4 for operand in list(op.operands)[1:3])
    return op.operands[0] if dims == [1, 2] else None


def _joined(value: Any, flat: tuple[int, ...]) -> Any | None:
    """The matrix [B,S,H*D] that [B,S,H,D] is a view of."""
    op = _owner(value, "torch.aten.view") or _owner(value, "torch.aten.unflatten.int")
    if op is None or tensor_shape(op.operands[0])[0] != flat:
        return None
    return op.operands[0]


def _sliced(value: Any) -> HeadView:
    """The wider matrix that a matrix is neighbouring columns of."""
    op = _owner(value, "torch.aten.slice.Tensor")
    if op is not None:
        source, dim, start, _, step = op.operands
        rank = len(tensor_shape(source)[0])
        begin = constant_of(start)
        last = constant_of(dim) in (-1, rank - 1)
        if last and constant_of(step) == 1 and isinstance(begin, int) and begin >= 0:
            return HeadView(source, begin)
    return HeadView(value, 0)
