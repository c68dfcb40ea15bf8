"""The parts of a joined projection are split into heads by one transposition.

Before::

    %q = slice %y, -1, 0, W                    %y: [B,S,n*W]
    %q4 = permute (view %q, [B,S,H,D]), [0,2,1,3]      [B,H,S,D]
    ... the same for each of the n parts

After::

    %p = permute (view %y, [B,S,n,H,D]), [2,0,3,1,4]   [n,B,H,S,D]
    %q4 = select %p, 0, 0                              [B,H,S,D]

Law: slicing, reshaping and permuting only name elements anew; both sides name the same ones.
Slices along the last dimension are strided copies, one dispatch each, and each part is
permuted by another. A slice along the first dimension of the permuted whole is contiguous: it
costs nothing. It applies where every part has the same number of heads of the same width.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, constant_of, integers_of, tensor_shape, tensor_type

__all__ = ["SplitHeads"]


class SplitHeads(Pattern):
    """See the module's docstring."""

    name = "canao.split_heads"
    stage: Stage = "torch"
    after = ("canao.fuse_qkv",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Rewrite every product whose result is only sliced into equal parts and split."""
        applied = 0
        for linear in operations(module, "torch.aten.linear"):
            parts = _equal_parts(linear)
            if parts:
                _rewrite(linear, parts)
                applied += 1
        return applied


def _equal_parts(linear: Any) -> list[tuple[Any, Any]]:
    """(slice, permute) of each part, in order; empty where the pattern does not apply."""
    result = linear.results[0]
    shape = tensor_shape(result)[0]
    users = [use.owner.operation for use in result.uses]
    if len(shape) != 3 or len(users) < 2 or shape[-1] % len(users):
        return []
    width = shape[-1] // len(users)
    found: dict[int, tuple[Any, Any]] = {}
    for piece in users:
        start = _start_of_slice(piece, width)
        permute = None if start is None else _head_split(piece)
        if start is None or permute is None:
            return []
        found[start] = (piece, permute)
    # Every part once, without gaps: together they are the whole.
    if sorted(found) != [index * width for index in range(len(users))]:
        return []
    if len({tensor_shape(permute.results[0]) for _, permute in found.values()}) != 1:
        return []
    return [found[start] for start in sorted(found)]


def _start_of_slice(piece: Any, width: int) -> int | None:
    """Where a slice of ``width`` along the last of three dimensions starts; else None."""
    if piece.name != "torch.aten.slice.Tensor":
        return None
    dim, start, end, step = (constant_of(value) for value in piece.operands[1:5])
    if dim not in (-1, 2) or step != 1 or not isinstance(start, int):
        return None
    return start if end == start + width else None


def _head_split(piece: Any) -> Any:
    """The permute [0,2,1,3] behind ``piece`` [B,S,W] -> view [B,S,H,D], each with one use."""
    view = _only_user(piece)
    if view is None or view.name not in ("torch.aten.view", "torch.aten.reshape"):
        return None
    before, after = tensor_shape(piece.results[0])[0], tensor_shape(view.results[0])[0]
    if len(after) != 4 or after[:2] != before[:2]:
        return None
    permute = _only_user(view)
    if permute is None:
        return None
    if permute.name == "torch.aten.permute":
        return permute if integers_of(permute.operands[1]) == [0, 2, 1, 3] else None
    if permute.name == "torch.aten.transpose.int":
        return permute if [constant_of(v) for v in permute.operands[1:3]] == [1, 2] else None
    return None


def _only_user(op: Any) -> Any:
    users = [use.owner.operation for use in op.results[0].uses]
    return users[0] if len(users) == 1 else None


def _rewrite(linear: Any, parts: list[tuple[Any, Any]]) -> None:
    count = len(parts)
    part = parts[0][1].results[0]
    (batch, heads, length, depth), element = tensor_shape(part)
    build = TorchBuilder(linear.location)
    with ir.InsertionPoint.after(linear):
        split = (batch, length, count, heads, depth)
        view = build.op(
            "aten.view", [linear.results[0], build.ints(split)], tensor_type(split, element)
        )
        whole = build.op(
            "aten.permute",
            [view, build.ints((2, 0, 3, 1, 4))],
            tensor_type((count, batch, heads, length, depth), element),
        )
        for index, (_, permute) in enumerate(parts):
            chosen = build.op(
                "aten.select.int", [whole, build.int(0), build.int(index)], part.type
            )
            permute.results[0].replace_all_uses_with(chosen)
