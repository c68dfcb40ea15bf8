"""MPNet adds one table of biases, a column a head, to the scores of every layer.

Where every layer keeps the same heads, the table loses columns. Where they differ, each layer
picks the columns of its own heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .cutting import keep
from .structure import Structure

__all__ = ["HEADS_BUFFER", "choose_biases", "pick_biases"]

HEADS_BUFFER = "kept_heads"
"""The buffer of an attention module that holds the columns of its heads."""

_TABLE = "relative_attention_bias"


def choose_biases(structure: Structure, heads: Sequence[torch.Tensor]) -> None:
    """Give each layer the biases of the heads [kept] that it still has, in place."""
    encoder = next((m for m in structure.base.modules() if hasattr(m, _TABLE)), None)
    if encoder is None:
        return
    before = [getattr(layer.attention, HEADS_BUFFER, None) for layer in structure.layers]
    columns = [
        kept if earlier is None else earlier.cpu()[kept]
        for earlier, kept in zip(before, heads, strict=True)
    ]
    alike = all(torch.equal(one, columns[0]) for one in columns)
    if alike and all(earlier is None for earlier in before):
        keep(encoder, [(getattr(encoder, _TABLE).weight, 1, columns[0])])
        return
    for layer, chosen in zip(structure.layers, columns, strict=True):
        pick_biases(layer.attention, chosen)


def pick_biases(attention: nn.Module, columns: torch.Tensor) -> None:
    """Make an attention module read these columns [heads] of the biases that it is given."""
    first = not hasattr(attention, HEADS_BUFFER)
    attention.register_buffer(HEADS_BUFFER, columns)
    if first:
        attention.register_forward_pre_hook(_pick)


def _pick(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, mask, bias, *others = arguments
    return hidden, mask, bias.index_select(1, getattr(module, HEADS_BUFFER)), *others
