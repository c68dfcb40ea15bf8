"""All that a recipe takes away before training: structure, the words' table, the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ...compiler.compression.importance import Importance
from ...compiler.compression.low_rank import factorise_embedding
from ...compiler.compression.recipe import Recipe
from ...compiler.compression.reorder import reorder_units
from ...compiler.compression.structured import prune_structured
from ...compiler.compression.vocabulary import cut_vocabulary
from ..data import Row

__all__ = ["shrink"]


def shrink(
    model: Any, tokenizer: Any, recipe: Recipe, importance: Importance, rows: Sequence[Row]
) -> tuple[Any, Any, torch.Tensor | None]:
    """(the smaller model, its tokenizer, the larger model's ids of its tokens or None).

    ``rows`` are the corpus by which tokens are chosen. Ids are None where the vocabulary stays.
    """
    smaller = prune_structured(model, tokenizer, recipe, importance)
    own, ids = tokenizer, None
    embedding = recipe.embedding
    if embedding is not None and embedding.vocabulary is not None:
        smaller, own = cut_vocabulary(smaller, tokenizer, _texts(rows), embedding.vocabulary)
        old, new = tokenizer.get_vocab(), own.get_vocab()
        ids = torch.zeros(smaller.config.vocab_size, dtype=torch.long)
        for token, number in new.items():
            ids[number] = old[token]
    if embedding is not None and embedding.rank is not None:
        factorise_embedding(smaller, embedding.rank)
    if recipe.sparsity:
        reorder_units(smaller, recipe)
    return smaller, own, ids


def _texts(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for name in ("text", "text_pair", "context", "question"):
            if row.get(name):
                yield row[name]
        if "tokens" in row:
            yield " ".join(row["tokens"])
