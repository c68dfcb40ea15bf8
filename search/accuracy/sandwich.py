"""Which sub-networks one step of training serves: the extremes of a space, and drawn ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...targets import PRECISIONS
from ..space.architecture import KINDS, Architecture, LayerShape
from ..space.space import ArchitectureSpace, Decision, Scalar

__all__ = ["dense", "extremes", "sandwich"]


def extremes(space: ArchitectureSpace) -> tuple[Architecture, Architecture]:
    """(the largest, the smallest): of every decision the choice that keeps most, or least."""
    ordered = {decision.name: _by_size(decision) for decision in space.decisions()}
    return (
        space.build({name: choices[-1] for name, choices in ordered.items()}),
        space.build({name: choices[0] for name, choices in ordered.items()}),
    )


def sandwich(
    space: ArchitectureSpace, count: int, seed: Sequence[int]
) -> tuple[Architecture, ...]:
    """The largest, the smallest and ``count`` drawn ones: a function of the space and ``seed``."""
    rng = np.random.default_rng(list(seed))
    return (*extremes(space), *(space.sample(rng) for _ in range(count)))


def dense(architecture: Architecture) -> Architecture:
    """The same sizes with all blocks."""

    def whole(layer: LayerShape) -> LayerShape:
        forms: dict[str, Any] = {
            kind: dataclasses.replace(layer.form(kind), density=1.0) for kind in KINDS
        }
        return dataclasses.replace(layer, **forms)

    layers = tuple(map(whole, architecture.layers))
    return dataclasses.replace(architecture, layers=layers)


def _by_size(decision: Decision) -> list[Scalar]:
    """Its choices, the one that keeps least first."""

    def kept(choice: Scalar) -> float:
        if decision.name == "embedding_int8":
            return -float(bool(choice))
        if isinstance(choice, str):
            return -float(PRECISIONS.index(choice))  # listed from the widest on
        return float("inf") if choice is None else float(choice)

    return sorted(decision.choices, key=kept)
