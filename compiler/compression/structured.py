"""Structured pruning: whole layers, heads, feed-forward units and hidden units go.

What is left is an ordinary model with smaller tensors. Heads keep their size. Without heads,
units or layers it computes exactly what the larger model would with those masked; hidden units
are in the norms' means, so there it is an approximation, which training mends.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import InputError
from .axes import axes_of
from .cutting import keep
from .importance import Importance, magnitude_importance
from .position_bias import choose_biases
from .recipe import Recipe
from .structure import Structure, structure_of
from .validation import check_model

__all__ = ["note_sizes", "prune_in_place", "prune_structured", "uniform"]


def prune_structured(
    model: Any, tokenizer: Any, recipe: Recipe, importance: Importance | None = None
) -> Any:
    """A new, smaller model with the most important layers, heads and units of ``model``.

    ``importance`` is of ``model``; None takes magnitudes. Only the structural fields of the
    recipe count here. ``tokenizer`` is the model's, or None; the smaller one reads the same.

    Raises `InputError`, naming the field, where the recipe asks for what is not there, or where
    the tokenizer has tokens that the model has no row for; `UnsupportedError` for a family that
    canao does not know.
    """
    check_model(recipe, model)
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model has rows for "
            f"{model.config.vocab_size}: it is another model's tokenizer."
        )
    scores = importance or magnitude_importance(model)
    _check_scores(scores, structure_of(model))
    pruned = copy.deepcopy(model)
    prune_in_place(pruned, recipe, scores)
    return pruned


def uniform(structure: Structure) -> Importance:
    """Scores by which all are alike: the first ones stay."""
    return Importance(
        heads=tuple(torch.ones(count) for count in structure.heads),
        ffn=tuple(torch.ones(count) for count in structure.ffn),
        hidden=torch.ones(structure.hidden),
        layers=torch.ones(len(structure.layers)),
    )


def prune_in_place(model: Any, recipe: Recipe, scores: Importance) -> None:
    """`prune_structured` on a model that may be changed; it may be without weights."""
    chosen = _kept_layers(recipe, scores.layers)
    _cut_layers(structure_of(model), chosen)
    structure = structure_of(model)
    heads = _each(recipe.heads, structure.heads)
    ffn = _each(recipe.ffn, structure.ffn)
    kept_heads = []
    for place, layer in enumerate(structure.layers):
        number = chosen[place]
        kept_heads.append(_groups(scores.heads[number], heads[place], layer.group))
        units = _best(scores.ffn[number], ffn[place])
        keep(layer.module, [*layer.keep_heads(kept_heads[-1]), *layer.keep_ffn(units)])
        layer.note_heads()
    choose_biases(structure, kept_heads)
    if recipe.hidden is not None and recipe.hidden < structure.hidden:
        _cut_hidden(model, _best(scores.hidden, recipe.hidden))
    note_sizes(model)


def _kept_layers(recipe: Recipe, scores: torch.Tensor) -> list[int]:
    """Numbers of the layers that stay, ascending."""
    if isinstance(recipe.layers, tuple):
        return list(recipe.layers)
    count = len(scores) if recipe.layers is None else recipe.layers
    return [int(place) for place in _best(scores, count)]


def note_sizes(model: Any) -> None:
    """Make ``model.config`` say what the model is. The number of heads of a model whose layers
    differ is the largest."""
    structure = structure_of(model)
    config, family = model.config, structure.family
    heads, groups = max(structure.heads), structure.layers[0].group
    sizes: dict[str, Any] = {
        "num_hidden_layers": len(structure.layers),
        "num_attention_heads": heads,
        family.ffn: max(structure.ffn),
        "hidden_size": structure.hidden,
    }
    if family.kv_heads is not None:
        sizes[family.kv_heads] = heads // groups
    if getattr(config, "embedding_size", None) == config.hidden_size:
        sizes["embedding_size"] = structure.hidden
    for name, size in sizes.items():
        setattr(config, name, size)


def _cut_layers(structure: Structure, chosen: Sequence[int]) -> None:
    modules = structure.modules
    kept = [modules[place] for place in chosen]
    del modules[len(kept) :]
    for place, module in enumerate(kept):
        modules[place] = module
        for part in module.modules():
            if hasattr(part, "layer_idx"):  # where the part keeps keys and values of old tokens
                part.layer_idx = place
    config = structure.model.config
    types = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(kept)
    if types is not None:
        config.layer_types = [types[place] for place in chosen]


def _cut_hidden(model: Any, units: torch.Tensor) -> None:
    parameters = dict(model.named_parameters())
    keep(
        model,
        [
            (parameters[name], axis, units)
            for name, axes in axes_of(model, "hidden").items()
            for axis in axes
        ],
    )


def _best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the ``count`` largest, ascending; of equal ones the first."""
    order = torch.argsort(scores.detach().cpu(), descending=True, stable=True)
    return order[:count].sort().values


def _groups(scores: torch.Tensor, heads: int, group: int) -> torch.Tensor:
    """The best ``heads`` heads, whole groups of those that share keys and values."""
    together = scores.reshape(-1, group).sum(1)
    kept = _best(together, heads // group)
    return (kept[:, None] * group + torch.arange(group)).flatten()


def _each(asked: int | tuple[int, ...] | None, present: Sequence[int]) -> Sequence[int]:
    if asked is None:
        return present
    return [asked] * len(present) if isinstance(asked, int) else asked


def _check_scores(scores: Importance, structure: Structure) -> None:
    found = [len(scores.layers), *map(len, scores.heads), *map(len, scores.ffn)]
    wanted = [len(structure.layers), *structure.heads, *structure.ffn]
    if found != wanted or len(scores.hidden) != structure.hidden:
        raise InputError(
            "The importance is not of this model: its layers, heads or units differ in number."
        )
