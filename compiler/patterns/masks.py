"""A mask that is the same for all queries, as a tensor of one query.

Before::

    %k = torch.aten.index.Tensor %mask, (0..B, 0..S)      [B,S] to [B,1,1,S], every one in turn
    %a = torch.aten.bitwise_and.Tensor %every, %k         [1,1,S,1] all true
    %m = torch.aten.expand %a, [B, 1, S, S]

After: ``view %mask, [B, 1, 1, S]``, which attention reads once for all of its queries.

Law: true and b = b; what is repeated along queries is the same for each of them; and to pick all
of a tensor in its order is to view it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from iree.compiler import ir

from .constants import constant_array
from .torch_ops import TorchBuilder, tensor_shape

__all__ = ["without_queries"]


def without_queries(build: TorchBuilder, mask: Any) -> Any:
    """The tensor [.., 1, keys or 1] that ``mask`` [.., queries, keys] repeats; ``mask`` itself
    where it repeats none."""
    found = _shared(mask)
    return mask if found is None else _viewed(build, found)


def _shared(value: Any) -> Any | None:
    dims, _ = tensor_shape(value)
    if len(dims) < 2 or dims[-2] == 1:
        return value
    if isinstance(value.owner, ir.Block):
        return None
    op = value.owner.operation
    if op.name == "torch.aten.expand":
        return _shared(op.operands[0])
    if op.name == "torch.aten.bitwise_and.Tensor":
        for one, other in (op.operands, reversed(op.operands)):
            known = constant_array(one)
            if known is not None and known.dtype == bool and known.all():
                return _shared(other)
    return None


def _viewed(build: TorchBuilder, value: Any) -> Any:
    """``value``, without the indices that pick all of its source in its order."""
    if (
        isinstance(value.owner, ir.Block)
        or value.owner.operation.name != "torch.aten.index.Tensor"
    ):
        return value
    op = value.owner.operation
    source, listed = op.operands
    shape, (dims, _) = tensor_shape(source)[0], tensor_shape(value)
    places = [constant_array(index) for index in listed.owner.operation.operands]
    if len(places) != len(shape) or math.prod(shape) != math.prod(dims):
        return value
    arrays = np.broadcast_arrays(*(place for place in places if place is not None))
    every = np.indices(shape).reshape(len(shape), -1)
    if len(arrays) != len(shape) or (np.stack(arrays).reshape(len(shape), -1) != every).any():
        return value
    with ir.InsertionPoint.after(op):
        return build.op("aten.view", [source, build.ints(list(dims))], value.type)
