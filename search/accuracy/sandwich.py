"""Which sub-networks one step of training serves: the extremes of a space, and drawn ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..space.architecture import KINDS, Architecture, LayerShape
from ..space.scalings import extremes
from ..space.space import ArchitectureSpace

__all__ = ["dense", "sandwich"]


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
