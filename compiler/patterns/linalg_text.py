"""Putting linalg, written as text, into a module of the torch dialect.

Before::

    %y = torch.aten.<op> %x, ...

After, where the text is a function of builtin tensors::

    %a = torch_c.to_builtin_tensor (view of %x as [rows, depth])
    %r = the body of the function, its arguments replaced by %a, ...
    %y = view of (torch_c.from_builtin_tensor %r)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

__all__ = ["MAPS", "splice", "tensor"]

MAPS = """
#cell = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (d0)>
#column = affine_map<(d0, d1) -> (d1)>
#left = affine_map<(m, n, k) -> (m, k)>
#right = affine_map<(m, n, k) -> (n, k)>
#result = affine_map<(m, n, k) -> (m, n)>
"""
"""Of an element-wise operation over a matrix, and of a product with a weight [outputs, depth]."""


def tensor(element: str, *shape: int) -> str:
    """A builtin tensor's type."""
    return f"tensor<{''.join(f'{size}x' for size in shape)}{element}>"


def splice(text: str, arguments: Sequence[Any], location: ir.Location, point: Any) -> Any:
    """The one result of the function in ``text``, its body moved to before the operation
    ``point``, its arguments replaced by ``arguments``."""
    parsed = ir.Module.parse(text)
    (function,) = parsed.body.operations
    (block,) = function.regions[0].blocks
    found = [str(argument.type) for argument in arguments]
    wanted = [str(argument.type) for argument in block.arguments]
    if found != wanted:
        raise ValueError(f"linalg for {', '.join(wanted)} was given {', '.join(found)}")
    for inner, outer in zip(block.arguments, arguments, strict=True):
        inner.replace_all_uses_with(outer)
    *body, end = [view.operation for view in block.operations]
    (result,) = end.operands
    end.erase()
    for operation in body:
        operation.move_before(point)
        operation.location = location
    return result
