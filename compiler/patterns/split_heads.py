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
    if len(tensor_shape(result)[0]) != 3:
        return []
    found: list[tuple[int, Any, Any]] = []
    for use in result.uses:
        piece = use.owner.operation
        permute = _head_split(piece)
        if permute is None:
            return []
        found.append((int(constant_of(piece.operands[2]) or 0), piece, permute))
    found.sort(key=lambda item: item[0])
    shapes = {tensor_shape(permute.results[0]) for _, _, permute in found}
    width = tensor_shape(result)[0][-1]
    even = all(start == index * width // len(found) for index, (start, _, _) in enumerate(found))
    if len(found) < 2 or len(shapes) != 1 or not even:
        return []
    return [(piece, permute) for _, piece, permute in found]


def _head_split(piece: Any) -> Any:
    """The permute [0,2,1,3] behind ``piece`` -> view [B,S,H,D], where each has one use."""
    if piece.name != "torch.aten.slice.Tensor" or constant_of(piece.operands[1]) not in (-1, 2):
        return None
    view = _only_user(piece)
    if view is None or view.name not in ("torch.aten.view", "torch.aten.reshape"):
        return None
    if len(tensor_shape(view.results[0])[0]) != 4:
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
