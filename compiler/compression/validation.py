"""Whether a model can become what a recipe asks for, before anything is done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ...errors import InputError, UnsupportedError
from ..kernels.sparse_choice import cuts
from .blocks import block_count, block_sums
from .cutting import without_weights
from .families import family_of
from .low_rank import LowRankEmbedding, check_rank, word_table
from .matching import matrices, products, rule_for, serving
from .recipe import PrecisionRule, Recipe, SparsityRule
from .structure import Layer, Structure, structure_of

__all__ = [
    "check_blocks",
    "check_config",
    "check_made",
    "check_model",
    "check_rules",
    "head_counts",
    "kept_blocks",
]


def check_config(recipe: Recipe, config: Any) -> None:
    """`Recipe.validate`: on a model of this configuration without weights."""
    import transformers

    family_of(config)
    names = [name for name in config.architectures or () if hasattr(transformers, name)]
    kind = getattr(transformers, names[0]) if names else None
    with torch.device("meta"):
        model = kind(config) if kind else transformers.AutoModel.from_config(config)
    check_model(recipe, model)


def check_model(recipe: Recipe, model: Any) -> None:
    """Raise `InputError`, naming the field, where ``model`` cannot become this."""
    structure = structure_of(model)
    layers = _check_layers(recipe, structure, model.config)
    _check_each("heads", recipe.heads, [structure.heads[n] for n in layers], "heads")
    _check_each("ffn", recipe.ffn, [structure.ffn[n] for n in layers], "feed-forward units")
    _check_hidden(recipe, structure, layers)
    _check_embedding(recipe, model, structure)
    check_blocks(recipe)
    if recipe.sparsity or recipe.precision:
        check_rules(recipe, _outline(recipe, model))


def check_rules(recipe: Recipe, model: Any) -> None:
    """Raise `InputError` where a rule of sparsity or precision fits nothing in ``model``, or
    leaves a matrix without a block."""
    names = matrices(model)
    every: tuple[tuple[str, Sequence[SparsityRule | PrecisionRule], Sequence[str]], ...] = (
        ("sparsity", recipe.sparsity, list(names)),
        ("precision", recipe.precision, list(products(model))),
    )
    for field, rules, fitting in every:
        served = [id(rule) for rule in serving(rules, fitting, model)]
        for index, rule in enumerate(rules):
            if id(rule) not in served:
                raise InputError(
                    f"{field}[{index}].match {rule.match!r} is the first to fit no matrix of "
                    f"{type(model).__name__}: one is called {next(iter(fitting), 'nothing')!r}."
                )
    for name, weight in names.items():
        sparse = rule_for(recipe.sparsity, name, model)
        if sparse is not None and kept_blocks(sparse, weight) == 0:
            panels, groups = block_count((weight.shape[0], weight.shape[1]), sparse.block)
            index = recipe.sparsity.index(sparse)
            raise InputError(
                f"sparsity[{index}].density {sparse.density} leaves an empty layer: {name} has "
                f"{panels * groups} blocks; ask for at least {1 / (panels * groups):.2g}."
            )


def kept_blocks(rule: SparsityRule, weight: torch.Tensor) -> int:
    """How many blocks of a weight [outputs, inputs] a rule leaves; 0 is refused."""
    panels, groups = block_count((weight.shape[0], weight.shape[1]), rule.block)
    return round(rule.density * panels * groups)


def _outline(recipe: Recipe, model: Any) -> Any:
    """``model`` without weights, its structure pruned: the names and shapes that rules fit."""
    from .structured import prune_in_place, uniform

    outline = without_weights(model)
    prune_in_place(outline, recipe, uniform(structure_of(model)))
    return outline


def _check_layers(recipe: Recipe, structure: Structure, config: Any) -> list[int]:
    count = len(structure.layers)
    if recipe.layers is None:
        return list(range(count))
    listed = isinstance(recipe.layers, tuple)
    asked = max(recipe.layers) + 1 if isinstance(recipe.layers, tuple) else recipe.layers
    if asked > count:
        what = f"layer {asked - 1}" if listed else f"{asked} layers"
        raise InputError(
            f"layers: the recipe keeps {what}, but the model has {count}"
            + (", numbered from 0." if listed else ".")
        )
    if getattr(config, "scale_attn_by_inverse_layer_idx", False) and asked < count:
        raise UnsupportedError(
            "layers: this model scales attention by a layer's number, so none can go."
        )
    return list(recipe.layers) if isinstance(recipe.layers, tuple) else list(range(asked))


def _check_each(
    field: str, asked: int | tuple[int, ...] | None, present: list[int], what: str
) -> None:
    if isinstance(asked, tuple) and len(asked) != len(present):
        raise InputError(
            f"{field} has {len(asked)} numbers, but {len(present)} layers are kept: give one "
            "number for each, or one for all."
        )
    if asked is None:
        return
    for place, count in enumerate(present):
        wanted = asked[place] if isinstance(asked, tuple) else asked
        where = f"{field}[{place}]" if isinstance(asked, tuple) else field
        if wanted > count:
            raise InputError(f"{where} is {wanted}, but the layer has {count} {what}.")


def head_counts(recipe: Recipe, structure: Structure, layer: Layer) -> list[int]:
    """How many heads ``layer`` may keep where ``recipe`` says its width, ascending."""
    hidden = structure.hidden if recipe.hidden is None else recipe.hidden
    divided = recipe.hidden is not None or structure.family.rotates
    counts = range(layer.group, layer.heads + 1, layer.group)
    return [count for count in counts if not (divided and hidden % count)]


def _check_hidden(recipe: Recipe, structure: Structure, layers: list[int]) -> None:
    present = structure.hidden
    hidden = present if recipe.hidden is None else recipe.hidden
    if hidden > present:
        raise InputError(f"hidden is {hidden}, but the model is {present} wide.")
    if hidden != present and hidden == getattr(structure.model.config, "embedding_size", None):
        raise InputError(
            f"hidden is {hidden}, as wide as this model's embeddings, and the family has no "
            f"projection between the two then: take another width."
        )
    for place, number in enumerate(layers):
        layer = structure.layers[number]
        heads = recipe.heads[place] if isinstance(recipe.heads, tuple) else recipe.heads
        heads = heads or layer.heads
        if heads % layer.group:
            raise InputError(
                f"heads: {heads} heads are no whole number of groups of {layer.group}, which "
                "share keys and values."
            )
        # Llama's kind of configuration refuses such a width whether or not it was asked for.
        if hidden % heads and (recipe.hidden is not None or structure.family.rotates):
            raise InputError(
                f"hidden: {heads} heads do not divide a width of {hidden}: take a multiple of "
                f"{heads}, or another number of heads."
            )


def _check_embedding(recipe: Recipe, model: Any, structure: Structure) -> None:
    if recipe.embedding is None:
        return
    _, _, table = word_table(model)
    size, rank = recipe.embedding.vocabulary, recipe.embedding.rank
    if size is not None and size > model.config.vocab_size:
        raise InputError(
            f"embedding.vocabulary is {size}, but the model has {model.config.vocab_size} tokens."
        )
    if rank is not None:
        width = getattr(table, "embedding_dim", structure.hidden)
        if width == structure.hidden and recipe.hidden is not None:
            width = recipe.hidden
        check_rank(model, table, rank, tokens=size or model.config.vocab_size, width=width)


def check_blocks(recipe: Recipe) -> None:
    """Raise `InputError` where no kernel could leave out blocks of a rule's shape."""
    served = {(group, panel) for group, panel, _ in cuts()}
    for index, rule in enumerate(recipe.sparsity):
        inputs, outputs = rule.block
        if not any(inputs % group == 0 == outputs % panel for group, panel in served):
            raise InputError(
                f"sparsity[{index}].block {inputs} x {outputs} is served by no kernel: inputs "
                "must be a multiple of 4 and outputs one of 16 (48 is fastest)."
            )


def check_made(recipe: Recipe, model: Any) -> None:
    """Raise `InputError`, naming the field, where ``model`` has not the sizes of ``recipe``.

    Compiling prunes nothing, so what a recipe asks for must have been done before.
    """
    if replace(recipe, precision=(), default_precision=None) == Recipe():
        return  # it is about precisions alone
    structure = structure_of(model)
    count = len(recipe.layers) if isinstance(recipe.layers, tuple) else recipe.layers
    pairs: dict[str, tuple[object, object]] = {
        "layers": (count, len(structure.layers)),
        "heads": (_spread(recipe.heads, structure), structure.heads),
        "ffn": (_spread(recipe.ffn, structure), structure.ffn),
        "hidden": (recipe.hidden, structure.hidden),
    }
    if recipe.embedding is not None:
        _, _, table = word_table(model)
        rank = table.table.embedding_dim if isinstance(table, LowRankEmbedding) else None
        pairs["embedding.rank"] = (recipe.embedding.rank, rank)
        pairs["embedding.vocabulary"] = (recipe.embedding.vocabulary, model.config.vocab_size)
    for field, (asked, present) in pairs.items():
        if asked is not None and asked != present:
            raise InputError(
                f"{field}: the recipe says {asked}, the model has {present}: compress it with "
                "the recipe first; compiling prunes nothing."
            )
    check_rules(recipe, model)
    for name, weight in matrices(model).items():
        rule = rule_for(recipe.sparsity, name, model)
        if rule is None:
            continue
        kept = int((block_sums((weight.detach() != 0).float(), rule.block) > 0).sum())
        if kept > kept_blocks(rule, weight):
            raise InputError(
                f"sparsity[{recipe.sparsity.index(rule)}]: {name} has {kept} blocks that are not "
                "zero, more than the recipe keeps: compress the model with the recipe first."
            )


def _spread(asked: int | tuple[int, ...] | None, structure: Structure) -> tuple[int, ...] | None:
    return (asked,) * len(structure.layers) if isinstance(asked, int) else asked
