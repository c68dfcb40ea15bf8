"""Which linear layers the general path computes in a narrow precision, and in which."""

from __future__ import annotations

from typing import Any

from .base import PatternContext
from .product_weights import precision_of
from .torch_ops import parameter_name, tensor_shape

__all__ = ["LEAST", "narrow_precision"]

LEAST = 16
"""Below this, a dimension of the weight leaves nothing to save: such a layer stays in f32."""


def narrow_precision(op: Any, context: PatternContext) -> str:
    """The precision that is asked for a linear layer's weight; f32 where it cannot be narrow."""
    source, weight, bias = op.operands
    name = parameter_name(weight)
    shape, _ = tensor_shape(weight)
    if name is None or len(shape) != 2 or min(shape) < LEAST:
        return "f32"
    vectors = [] if str(bias.type) == "!torch.none" else [bias]
    if any(tensor_shape(value)[1] != "f32" for value in (source, weight, *vectors)):
        return "f32"
    return precision_of(context, name)
