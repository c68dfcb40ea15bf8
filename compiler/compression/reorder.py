"""Units in another order, so that blocks hold weights that matter alike.

A block lives or dies whole. Where strong and weak weights are mixed in it, zeroing it loses strong
ones and keeping it keeps weak ones. Feed-forward units may stand in any order, if the rows of the
matrix that writes them and the columns of the one that reads them move together; so may heads, and
within a head the units of V, and those of Q and K together. The model computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .blocks import block_sums
from .cutting import Kept, input_axis, keep, output_axis
from .importance import Importance
from .matching import matrices, rule_for
from .position_bias import HEADS_BUFFER
from .recipe import Recipe, SparsityRule
from .structure import Layer, structure_of
from .validation import kept_blocks

__all__ = ["reorder_units"]

_Order = torch.Tensor
_Side = tuple[torch.Tensor, int, SparsityRule]
"""Scores [outputs, inputs] of a matrix, the axis along which units move, and its rule."""


def reorder_units(model: Any, recipe: Recipe, importance: Importance | None = None) -> int:
    """Reorder ``model`` in place for the ``sparsity`` rules; how many orders changed.

    A layer's order changes only where the blocks that a rule keeps then hold more: more of the
    squares of the weights, or of the scores that ``importance`` kept of them. Heads that read a
    shared table of position biases stay where they are.
    """
    names = {id(weight): name for name, weight in matrices(model).items()}

    def side(matrix: nn.Module, axis: int) -> _Side | None:
        name = names.get(id(matrix.weight))
        rule = rule_for(recipe.sparsity, name, model) if name is not None else None
        if rule is None or name is None:
            return None
        kept = importance.weights.get(name) if importance is not None else None
        weight = matrix.get_parameter("weight").detach()
        return (weight.square() if kept is None else kept).float(), axis, rule

    changed = 0
    with torch.no_grad():
        for layer in structure_of(model).layers:
            changed += _reorder_ffn(layer, side)
            changed += _reorder_heads(layer, side, model)
    return changed


_SideOf = Callable[[nn.Module, int], _Side | None]


def _reorder_ffn(layer: Layer, side: _SideOf) -> int:
    family = layer.family
    writers = [layer.part(path) for path in family.ffn_in]
    reader = layer.part(family.ffn_out)
    sides = [side(matrix, output_axis(matrix)) for matrix in writers]
    sides.append(side(reader, input_axis(reader)))
    order = _better(sides, layer.ffn)
    if order is None:
        return 0
    keep(layer.module, layer.keep_ffn(order))
    return 1


def _reorder_heads(layer: Layer, side: _SideOf, model: Any) -> int:
    """Whole heads, then the units of V within heads."""
    if layer.group > 1 or layer.joined or _reads_biases(layer, model):
        return 0
    family, size = layer.family, layer.head_size
    changed = 0
    output = layer.part(family.output)
    readers = [side(output, input_axis(output))]
    writers = [side(layer.part(p), 0) for p in (family.query, family.key, family.value)]
    order = _better([*writers, *readers], layer.heads, size=size)
    if order is not None:
        keep(layer.module, layer.keep_heads(order))
        changed += 1
    value = layer.part(family.value)
    places = _within(layer, [side(value, 0), side(output, input_axis(output))])
    if places is not None:
        wanted: list[Kept] = [(output.weight, input_axis(output), places)]
        wanted += [(p, 0, places) for p in value.parameters(recurse=False)]
        keep(layer.module, wanted)
        changed += 1
    if not family.rotates:
        both = [layer.part(family.query), layer.part(family.key)]
        places = _within(layer, [side(matrix, 0) for matrix in both])
        if places is not None:
            keep(
                layer.module,
                [(p, 0, places) for matrix in both for p in matrix.parameters(recurse=False)],
            )
            changed += 1
    return changed


def _reads_biases(layer: Layer, model: Any) -> bool:
    return hasattr(layer.attention, HEADS_BUFFER) or model.config.model_type == "mpnet"


def _better(sides: Sequence[_Side | None], count: int, *, size: int = 1) -> _Order | None:
    """The best order of ``count`` units of ``size`` places; None where none beats the present."""
    known = [s for s in sides if s is not None]
    if not known or count < 2:
        return None
    best, most = None, _held(known, torch.arange(count * size)) * (1 + 1e-4)
    for order in _orders(known, count, size):
        held = _held(known, _places(order, size))
        if held > most:
            best, most = order, held
    return best


def _within(layer: Layer, sides: Sequence[_Side | None]) -> _Order | None:
    """The best order of the units within each head, as places [heads * size]; None for none."""
    known = [s for s in sides if s is not None]
    if not known:
        return None
    size, heads = layer.head_size, layer.heads
    sums = torch.stack([scores.sum(1 - axis) for scores, axis, _ in known]).sum(0)
    order = sums.reshape(heads, size).argsort(dim=1, descending=True, stable=True)
    places = (torch.arange(heads)[:, None] * size + order.cpu()).flatten()
    held, before = (_held(known, p) for p in (places, torch.arange(heads * size)))
    return places if held > before * (1 + 1e-4) else None


def _orders(sides: Sequence[_Side], count: int, size: int) -> list[_Order]:
    """Candidates: by strength, and by likeness of what units read and write."""
    features = []
    for scores, axis, (inputs, outputs) in ((s, a, rule.block) for s, a, rule in sides):
        by_unit = block_sums(scores, (inputs, 1) if axis == 0 else (1, outputs))
        by_unit = by_unit if axis == 0 else by_unit.t()
        features.append(by_unit.reshape(count, size, -1).sum(1))
    table = torch.cat(features, dim=1).double()
    orders = [table.sum(1).argsort(descending=True, stable=True)]
    centred = table.sqrt() - table.sqrt().mean(0)
    _, vectors = torch.linalg.eigh(centred.t() @ centred)
    orders.append((centred @ vectors[:, -1]).argsort(stable=True))
    return [order.cpu() for order in orders]


def _places(order: _Order, size: int) -> torch.Tensor:
    return (order[:, None] * size + torch.arange(size)).flatten()


def _held(sides: Sequence[_Side], places: torch.Tensor) -> float:
    """What the blocks that the rules keep would hold, all matrices together."""
    total = 0.0
    for scores, axis, rule in sides:
        moved = scores.index_select(axis, places.to(scores.device))
        sums = block_sums(moved, rule.block).flatten()
        kept = max(1, kept_blocks(rule, moved))
        total += float(sums.topk(kept).values.sum() / scores.sum().clamp_min(1e-30))
    return total
