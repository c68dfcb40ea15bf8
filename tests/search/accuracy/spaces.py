"""A space of sub-networks of the tiny models, and architectures drawn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from canao.compiler.compression.importance import Importance
from canao.search.space.architecture import Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace
from tests.search.support import tiny_model

__all__ = ["architectures", "dense_space", "lively", "scores", "space"]

_FORMS = MatrixChoices(precisions=("f32", "bf16", "int8"), densities=(1.0, 0.5, 0.25))


def dense_space(**changes: Any) -> ArchitectureSpace:
    """Sizes alone."""
    return ArchitectureSpace(
        **{
            "layers": (1, 2, 3),
            "hidden": (16, 24, 32),
            "heads": (1, 2),
            "ffn": (16, 31, 48),
            "head_size": 16,
            "block": (4, 16),
            "vocabularies": (99,),
            "seq_lens": (32,),
            "positions": 64,
            **changes,
        }
    )


def space(**changes: Any) -> ArchitectureSpace:
    """Sizes, blocks, precisions, and a factorised table of words."""
    forms = dict.fromkeys(("qkv", "output", "up", "down"), _FORMS)
    return dense_space(**{**forms, "embedding_ranks": (None, 8), **changes})


def architectures(of: ArchitectureSpace) -> st.SearchStrategy[Architecture]:
    """Drawn as the search draws."""
    return st.integers(0, 2**32 - 1).map(lambda seed: of.sample(np.random.default_rng(seed)))


def lively(seed: int = 0) -> Any:
    """A tiny classifier of three layers whose biases and norms are not those it begins with."""
    import transformers as tf

    model = tiny_model("sequence-classification", seed=seed)
    model.config.num_hidden_layers = 3
    generator = torch.Generator().manual_seed(seed)
    model = tf.BertForSequenceClassification(model.config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def scores(model: Any, seed: int) -> Importance:
    """Importance of a tiny model, drawn; no two parts matter alike."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        return torch.randperm(count, generator=generator).float()

    layers = model.config.num_hidden_layers
    return Importance(
        heads=tuple(drawn(2) for _ in range(layers)),
        ffn=tuple(drawn(48) for _ in range(layers)),
        hidden=drawn(32),
        layers=drawn(layers),
    )
