"""Drawn spaces and architectures, most of them tiny."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from canao.search.space.architecture import HEADS, Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import PER_LAYER, ArchitectureSpace

__all__ = ["architectures", "spaces", "tiny"]

_DENSITIES = (1.0, 0.75, 0.5, 0.3)


def tiny(**changed: Any) -> ArchitectureSpace:
    """Sub-networks of a BERT of 2 layers, 96 wide, with heads of 16."""
    forms = MatrixChoices(precisions=("f32", "bf16", "int8"), densities=(1.0, 0.5, 0.25))
    fields: dict[str, Any] = {
        "layers": (1, 2),
        "hidden": (48, 96),
        "heads": (2, 3),
        "ffn": (48, 96, 192),
        "head_size": 16,
        **dict.fromkeys(("qkv", "output", "up", "down"), forms),
        "seq_lens": (8, 16),
        "vocabularies": (500,),
        "positions": 32,
    }
    return ArchitectureSpace(**{**fields, **changed})


def _some(values: Any, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True).map(tuple)


_forms = st.builds(
    MatrixChoices,
    precisions=_some(("f32", "bf16", "int8", "int8-weights", "int4-weights")),
    densities=_some(_DENSITIES),
)


def _space(**fields: Any) -> ArchitectureSpace:
    labels = 2 if fields["head"] == "question-answering" else fields["labels"]
    return ArchitectureSpace(**{**fields, "labels": labels})


spaces = st.builds(
    _space,
    layers=_some((1, 2, 3)),
    hidden=_some((48, 96, 144)),
    heads=_some((1, 2, 3, 6)),
    ffn=_some((48, 72, 160)),
    head_size=st.sampled_from((16, 20)),
    qkv=_forms,
    output=_forms,
    up=_forms,
    down=_forms,
    seq_lens=_some((1, 7, 32)),
    vocabularies=_some((500, 901)),
    embedding_ranks=_some((None, 8, 24)),
    embedding_int8=_some((False, True)),
    block=st.sampled_from(((4, 16), (4, 48), (8, 32))),
    positions=st.sampled_from((32, 64)),
    types=st.integers(1, 3),
    head=st.sampled_from(HEADS),
    labels=st.sampled_from((2, 5, 16)),
    rest=st.sampled_from(("f32", "bf16", "int8")),
    per_layer=_some(PER_LAYER, len(PER_LAYER)),
)


@st.composite
def architectures(
    draw: st.DrawFn, drawn: st.SearchStrategy[ArchitectureSpace] = spaces
) -> Architecture:
    """Members of drawn spaces."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return draw(drawn).sample(rng)
