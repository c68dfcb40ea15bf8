"""An architecture as a row of numbers, by name: what a network of neurons reads, and what tells
how far a candidate is from all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...targets import PRECISIONS
from ..space.architecture import KINDS, Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIZES", "sizes", "trait_rows", "traits"]

SIZES = (
    "seq_len", "layers", "hidden", "heads", "ffn", "vocabulary", "embedding_rank", "head_size",
)  # fmt: skip
"""Sizes that scale a model; heads and ffn are means over its layers."""


def sizes(architecture: Architecture) -> dict[str, float]:
    """`SIZES` by name; a table of words that is whole has the rank of its width."""
    layers = architecture.layers
    return {
        "seq_len": architecture.seq_len,
        "layers": len(layers),
        "hidden": architecture.hidden,
        "heads": _mean([layer.heads for layer in layers]),
        "ffn": _mean([layer.ffn for layer in layers]),
        "vocabulary": architecture.vocabulary,
        "embedding_rank": architecture.embedding_rank or architecture.hidden,
        "head_size": architecture.head_size,
    }


def traits(architecture: Architecture) -> Mapping[str, float]:
    """Sizes and their extremes over layers; for each kind of matrix the mean share of blocks kept
    and the share of layers in each precision."""
    layers = architecture.layers
    found = sizes(architecture)
    for name in ("heads", "ffn"):
        each = [float(getattr(layer, name)) for layer in layers]
        found |= {f"least {name}": min(each), f"most {name}": max(each)}
    for kind in KINDS:
        forms = [layer.form(kind) for layer in layers]
        found[f"{kind} density"] = _mean([form.density for form in forms])
        for precision in PRECISIONS:
            share = _mean([float(form.precision == precision) for form in forms])
            found[f"{kind} {precision}"] = share
    found["embedding_int8"] = float(architecture.embedding_int8)
    found["labels"] = float(architecture.labels)
    return found


def trait_rows(architectures: Sequence[Architecture]) -> NDArray[Any]:
    """Traits as float64 [n, traits], in the order of `traits`."""
    return np.array([list(traits(one).values()) for one in architectures], np.float64)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values)) / len(values)
