"""Tiny models and drawn recipes for the tests of compression."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from canao.compiler.compression.recipe import (
    EmbeddingRecipe,
    PrecisionRule,
    Recipe,
    SparsityRule,
)
from canao.targets import PRECISIONS

from .. import families

ENCODERS = ("BERT", "DistilBERT", "RoBERTa", "XLM-R", "ELECTRA", "MPNet")
FAMILIES = (*ENCODERS, "GPT-2", "Llama", "Qwen3")
GROUPED = ("Llama", "Qwen3")
"""Two heads of queries share one of keys and values in the tiny models."""


def tokens(count: int = 2, length: int = 9) -> torch.Tensor:
    """Drawn token ids [count, length] without padding among them."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(5, 99, (count, length), generator=generator)


def outputs(model: Any, ids: torch.Tensor | None = None) -> torch.Tensor:
    """The first output for drawn tokens."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=tokens() if ids is None else ids)[0]
    return found


def lively(family: str, head: str = "base") -> Any:
    """A tiny model whose biases and norms are not the zeros and ones that it begins with."""
    model = families.build(family, head)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_sizes = st.integers(1, 1 << 20)
_shares = st.floats(0, 1, exclude_min=True, allow_subnormal=False)

sparsity_rules = st.builds(
    SparsityRule, match=names, block=st.tuples(_sizes, _sizes), density=_shares
)
precision_rules = st.builds(PrecisionRule, match=names, precision=st.sampled_from(PRECISIONS))
recipes = st.builds(
    Recipe,
    layers=st.none()
    | _sizes
    | st.sets(st.integers(0, 99), min_size=1).map(lambda found: tuple(sorted(found))),
    hidden=st.none() | _sizes,
    heads=st.none() | _sizes | st.lists(_sizes, min_size=1, max_size=4).map(tuple),
    ffn=st.none() | _sizes | st.lists(_sizes, min_size=1, max_size=4).map(tuple),
    sparsity=st.lists(sparsity_rules, max_size=2).map(tuple),
    precision=st.lists(precision_rules, max_size=2).map(tuple),
    default_precision=st.none() | st.sampled_from(PRECISIONS),
    embedding=st.none()
    | st.builds(
        EmbeddingRecipe,
        int8=st.booleans(),
        rank=st.none() | _sizes,
        vocabulary=st.none() | _sizes,
    ),
)
"""Recipes of every form; most ask for what no model has."""
