"""All that a recipe takes away before training: structure, the words' table, the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ...compiler.compression.importance import Importance
from ...compiler.compression.low_rank import factorise_embedding
from ...compiler.compression.recipe import Recipe
from ...compiler.compression.reorder import reorder_units
from ...compiler.compression.structured import prune_structured
from ...compiler.compression.vocabulary import cut_vocabulary
from ..data import Row

__all__ = ["former_ids", "shrink", "texts_of"]


def shrink(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    importance: Importance,
    rows: Sequence[Row],
    *,
    weigh: Callable[[Any, Any], Importance] | None = None,
) -> tuple[Any, Any, torch.Tensor | None]:
    """(the smaller model, its tokenizer, the larger model's ids of its tokens or None).

    ``rows`` are the corpus by which tokens are chosen. Ids are None where the vocabulary stays.
    ``weigh(smaller model, its tokenizer)`` scores the weights by which units are reordered for
    blocks; None takes their squares, by which blocks are chosen too, unless by movement.
    """
    smaller = prune_structured(model, tokenizer, recipe, importance)
    own, ids = tokenizer, None
    embedding = recipe.embedding
    if embedding is not None and embedding.vocabulary is not None:
        smaller, own = cut_vocabulary(smaller, tokenizer, texts_of(rows), embedding.vocabulary)
        ids = former_ids(tokenizer, own, embedding.vocabulary)
    if embedding is not None and embedding.rank is not None:
        factorise_embedding(smaller, embedding.rank)
    if recipe.sparsity:
        reorder_units(smaller, recipe, None if weigh is None else weigh(smaller, own))
    return smaller, own, ids


def former_ids(tokenizer: Any, own: Any, size: int) -> torch.Tensor:
    """[size], int64: the number in ``tokenizer`` of each of the tokens that ``own`` kept."""
    old = tokenizer.get_vocab()
    ids = torch.zeros(size, dtype=torch.long)
    for token, number in own.get_vocab().items():
        ids[number] = old[token]
    return ids


def texts_of(rows: Sequence[Row]) -> Iterator[str]:
    """All texts of the rows: the corpus that a vocabulary is chosen by."""
    for row in rows:
        for name in ("text", "text_pair", "context", "question"):
            if row.get(name):
                yield row[name]
        if "tokens" in row:
            yield " ".join(row["tokens"])
