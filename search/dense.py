"""The dense model that a block-sparse one has to beat: equal FLOPs, trained alike."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from ..compiler.compression.costs import model_costs
from ..compiler.compression.recipe import Recipe
from ..compiler.compression.structure import structure_of
from ..compiler.compression.structured import prune_structured

__all__ = ["dense_of_equal_flops"]

_STEP = 16  # kernels work in multiples of it


def dense_of_equal_flops(model: Any, recipe: Recipe, flops: int, seq_len: int) -> Recipe:
    """``recipe`` without its sparsity, narrower instead: at most ``flops``, and hardly less.

    Feed-forward networks shrink first, all by one factor and to multiples of 16; where that does
    not suffice, heads go one by one. ``model`` is the teacher. Nothing is computed.
    """
    bare = copy.deepcopy(model).to("meta")
    base = dataclasses.replace(recipe, sparsity=())
    shape = structure_of(_pruned(bare, base))
    heads, widths = list(shape.heads), list(shape.ffn)

    def costs(factor: float, fewer: int) -> tuple[int, Recipe]:
        found = dataclasses.replace(
            base,
            layers=base.layers,
            heads=tuple(max(1, count - fewer) for count in heads),
            ffn=tuple(min(w, max(_STEP, int(w * factor) // _STEP * _STEP)) for w in widths),
        )
        return model_costs(_pruned(bare, found), seq_len, found).flops, found

    for fewer in range(max(heads)):
        if costs(0.0, fewer)[0] <= flops:
            break
    low, high = 0.0, 1.0
    while high - low > _STEP / (4 * max(widths)):
        middle = (low + high) / 2
        low, high = (middle, high) if costs(middle, fewer)[0] <= flops else (low, middle)
    return costs(1.0 if costs(1.0, fewer)[0] <= flops else low, fewer)[1]


def _pruned(model: Any, recipe: Recipe) -> Any:
    structure = structure_of(model)
    from ..compiler.compression.importance import Importance

    # Which parts stay changes no count.
    scores = Importance(
        heads=tuple(torch.ones(count) for count in structure.heads),
        ffn=tuple(torch.ones(count) for count in structure.ffn),
        hidden=torch.ones(structure.hidden),
        layers=torch.ones(len(structure.layers)),
    )
    return prune_structured(model, None, recipe, scores)
