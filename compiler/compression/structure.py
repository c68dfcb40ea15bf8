"""A live model seen as layers of attention heads and feed-forward units.

Sizes are read from the weights, not from the configuration, so a model whose layers differ, or
which was pruned before, is seen as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .cutting import Kept, input_axis, output_axis
from .families import Family, family_of

__all__ = ["Layer", "Structure", "structure_of"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: attention and a feed-forward network."""

    module: nn.Module
    family: Family

    def part(self, path: str) -> Any:
        """The module at a path of `Family`."""
        return self.module.get_submodule(path)

    @property
    def attention(self) -> Any:
        """The module that holds the heads' sizes."""
        return self.part(self.family.attention)

    @property
    def joined(self) -> bool:
        """Whether Q, K and V are one matrix."""
        return self.family.key == self.family.query

    @property
    def head_size(self) -> int:
        """Numbers in one head."""
        return int(getattr(self.attention, self.family.head_size))

    @property
    def heads(self) -> int:
        """Heads of queries."""
        output = self.part(self.family.output)
        return int(output.weight.shape[input_axis(output)]) // self.head_size

    @property
    def group(self) -> int:
        """Heads of queries that share one head of keys and values; they stay or go together."""
        if self.joined:
            return 1
        key = self.part(self.family.key)
        return self.heads * self.head_size // int(key.weight.shape[output_axis(key)])

    @property
    def ffn(self) -> int:
        """Units of the feed-forward network."""
        output = self.part(self.family.ffn_out)
        return int(output.weight.shape[input_axis(output)])

    def inner(self) -> list[tuple[nn.Parameter, int]]:
        """Parameters and axes that run over heads or feed-forward units."""
        found = []
        for path in {self.family.query, self.family.key, self.family.value, *self.family.ffn_in}:
            matrix = self.part(path)
            found.append((matrix.weight, output_axis(matrix)))
            if matrix.bias is not None:
                found.append((matrix.bias, 0))
        for path in (self.family.output, self.family.ffn_out):
            matrix = self.part(path)
            found.append((matrix.weight, input_axis(matrix)))
        return found

    def keep_heads(self, heads: torch.Tensor) -> list[Kept]:
        """What must be cut so that only these heads of queries [kept] stay, in this order.

        With grouped queries they must be whole groups, one after another.
        """
        size, group = self.head_size, self.group
        shared = heads[::group] // group
        queries, keys = _units(heads, size), _units(shared, size)
        output = self.part(self.family.output)
        wanted = [(output.weight, input_axis(output), queries)]
        if self.joined:
            width = self.heads * size
            rows = torch.cat([queries, queries + width, queries + 2 * width])
            return wanted + _rows(self.part(self.family.query), rows)
        wanted += _rows(self.part(self.family.query), queries)
        for path in (self.family.key, self.family.value):
            wanted += _rows(self.part(path), keys)
        return wanted

    def keep_ffn(self, units: torch.Tensor) -> list[Kept]:
        """What must be cut so that only these feed-forward units [kept] stay, in this order."""
        output = self.part(self.family.ffn_out)
        wanted: list[Kept] = [(output.weight, input_axis(output), units)]
        for path in self.family.ffn_in:
            wanted += _rows(self.part(path), units)
        return wanted

    def note_heads(self) -> None:
        """Make the attention module say how many heads its weights have."""
        for name in self.family.head_counts:
            setattr(self.attention, name, self.heads)
        for name in self.family.widths:
            setattr(self.attention, name, self.heads * self.head_size)


@dataclass(frozen=True, eq=False)
class Structure:
    """``base`` is the encoder or decoder within ``model``; ``layers`` its layers in order."""

    model: Any
    base: Any
    family: Family
    layers: tuple[Layer, ...]

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads of each layer."""
        return tuple(layer.heads for layer in self.layers)

    @property
    def ffn(self) -> tuple[int, ...]:
        """Feed-forward units of each layer."""
        return tuple(layer.ffn for layer in self.layers)

    @property
    def hidden(self) -> int:
        """The width of what passes from layer to layer."""
        first = self.layers[0].part(self.family.ffn_out)
        return int(first.weight.shape[output_axis(first)])

    @property
    def modules(self) -> Any:
        """The ModuleList of the layers."""
        return self.base.get_submodule(self.family.layers)


def structure_of(model: Any) -> Structure:
    """See a transformers model as layers. Raises `UnsupportedError` for an unknown family."""
    family = family_of(model.config)
    base = getattr(model, model.base_model_prefix, model)
    modules = base.get_submodule(family.layers)
    return Structure(model, base, family, tuple(Layer(module, family) for module in modules))


def _units(index: torch.Tensor, size: int) -> torch.Tensor:
    return (index[:, None] * size + torch.arange(size)).flatten()


def _rows(matrix: nn.Module, index: torch.Tensor) -> list[Kept]:
    weight, bias = matrix.weight, matrix.bias
    assert isinstance(weight, nn.Parameter)
    found: list[Kept] = [(weight, output_axis(matrix), index)]
    if isinstance(bias, nn.Parameter):
        found.append((bias, 0, index))
    return found
