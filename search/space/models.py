"""Models of an architecture: with fresh weights, or cut out of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...compiler.checkpoint import HEADS, own_head, quiet_transformers
from ...compiler.compression.block_sparsity import BlockSparsifier
from ...compiler.compression.blocks import block_sums, expanded
from ...compiler.compression.cutting import replace_parameters
from ...compiler.compression.importance import Importance
from ...compiler.compression.low_rank import LowRankEmbedding, factorise_embedding, word_table
from ...compiler.compression.reorder import reorder_units
from ...compiler.compression.structure import structure_of
from ...compiler.compression.structured import note_sizes, prune_structured
from ...compiler.compression.vocabulary import keep_tokens
from ...errors import InputError
from .architecture import KINDS, Architecture
from .masks import drawn_blocks
from .recipes import check_teacher, recipe_of

__all__ = ["blocks_of", "fresh_model", "sub_network"]

_PATHS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "output": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}


def fresh_model(architecture: Architecture, seed: int = 0) -> Any:
    """A BERT of ``architecture`` with its head, float32, in evaluation mode.

    Weights are drawn as transformers draws them, from ``seed``; of a matrix with a density below
    1 those blocks are zero that `masks.drawn_blocks` leaves out, whatever the seed.
    """
    import transformers

    a = architecture
    config = transformers.BertConfig(
        vocab_size=a.vocabulary,
        hidden_size=a.hidden,
        num_hidden_layers=len(a.layers),
        num_attention_heads=1,  # transformers takes no number that does not divide the width
        intermediate_size=1,
        max_position_embeddings=a.positions,
        type_vocab_size=a.types,
        num_labels=a.labels,
    )
    auto = getattr(transformers, HEADS[a.head][0])
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
        if a.embedding_rank is not None:
            parent, name, _ = word_table(model)
            table = LowRankEmbedding(a.vocabulary, a.embedding_rank, a.hidden)
            for weight in table.parameters():
                weight.data.normal_(0.0, config.initializer_range)
            setattr(parent, name, table)
        for number, layer in enumerate(structure_of(model).layers):
            setattr(layer.attention, layer.family.head_size, a.head_size)
            layer.attention.scaling = a.head_size**-0.5
            replace_parameters(layer.module, _drawn(a, number, layer.module, config))
            layer.note_heads()
    note_sizes(model)
    return model.float().eval()


def sub_network(
    teacher: Any,
    architecture: Architecture,
    importance: Importance | None = None,
    *,
    tokens: Sequence[int] | None = None,
) -> Any:
    """A model of ``architecture`` with the most important parts of ``teacher``, which is left as
    it is. Blocks that do not stay are those with the smallest squares.

    ``teacher`` is a BERT of transformers with the architecture's head; ``importance`` is of it
    (None: by magnitude). ``tokens``: the ids that stay, ascending, where the vocabulary shrinks
    (`compression.vocabulary.choose_tokens`).

    Raises `InputError`, naming the field, where the teacher is not at least as large, has another
    head, or where ``tokens`` are missing; `UnsupportedError` where it is no BERT.
    """
    a, config = architecture, teacher.config
    check_teacher(a, config)
    _check_head(a, teacher)
    sizes = {layer.head_size for layer in structure_of(teacher).layers}
    if sizes != {a.head_size}:
        raise InputError(
            f"head_size is {a.head_size}, but the teacher's heads are of {sorted(sizes)[0]}: "
            "heads keep their size."
        )
    recipe = recipe_of(a, config)
    model = prune_structured(teacher, None, recipe, importance)
    if a.vocabulary < config.vocab_size:
        if tokens is None or len(tokens) != a.vocabulary:
            raise InputError(
                f"vocabulary: {a.vocabulary} tokens of {config.vocab_size} stay: say by `tokens` "
                "which (choose_tokens finds them on a corpus)."
            )
        keep_tokens(model, tokens)
    if a.embedding_rank is not None:
        factorise_embedding(model, a.embedding_rank)
    if recipe.sparsity:
        reorder_units(model, recipe)
        BlockSparsifier(model, recipe).step(1.0)
    return model.eval()


def blocks_of(
    model: Any, architecture: Architecture
) -> Callable[[int, str, int], NDArray[np.bool_] | None]:
    """Which blocks of a model's matrices are not zero, as `masks.drawn_blocks` says it of a fresh
    one: by a layer's number, a kind and its part; None where the architecture has it dense."""
    layers = structure_of(model).layers

    def kept(number: int, kind: str, part: int = 0) -> NDArray[np.bool_] | None:
        if architecture.layers[number].form(kind).density == 1:
            return None
        weight = layers[number].part(_PATHS[kind][part]).weight
        sums = block_sums((weight.detach() != 0).float(), architecture.block)
        alive: NDArray[np.bool_] = (sums > 0).numpy()
        return alive

    return kept


def _check_head(architecture: Architecture, teacher: Any) -> None:
    found = own_head(teacher.config, teacher)
    labels = teacher.config.num_labels
    if found != architecture.head:
        raise InputError(
            f"head: the architecture's is {architecture.head}, the teacher's {found}: load the "
            "teacher with that head."
        )
    if found != "base" and labels != architecture.labels:
        raise InputError(
            f"labels: the architecture has {architecture.labels}, the teacher {labels}."
        )


def _drawn(a: Architecture, number: int, module: nn.Module, config: Any) -> Any:
    """What makes the parameters of a layer of its sizes: called once for each."""
    made: dict[int, torch.Tensor] = {}
    for kind in KINDS:
        outputs, inputs, _ = a.matrix(number, kind)
        for part, path in enumerate(_PATHS[kind]):
            linear = module.get_submodule(path)
            weight = torch.empty(outputs, inputs).normal_(0.0, config.initializer_range)
            blocks = drawn_blocks(a, number, kind, part)
            if blocks is not None:
                kept = torch.from_numpy(blocks.copy()).float()
                weight *= expanded(kept, a.block, (outputs, inputs))
            made[id(linear.weight)] = weight
            made[id(linear.bias)] = torch.zeros(outputs)
    return lambda parameter: made.get(id(parameter))
