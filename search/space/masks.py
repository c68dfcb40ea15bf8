"""Which blocks a fresh model keeps: drawn once for each matrix of an architecture.

They follow from the matrix's place, shape, block and density alone, so a program can be derived
from an architecture, zeros included, and be that of its fresh models to the last block. Training
chooses others, as many of them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .architecture import KINDS, Architecture

__all__ = ["drawn_blocks", "parts_of"]


def parts_of(kind: str) -> int:
    """How many matrices of one kind a layer has."""
    return 3 if kind == "qkv" else 1


def drawn_blocks(
    architecture: Architecture, number: int, kind: str, part: int = 0
) -> NDArray[np.bool_] | None:
    """[panels of outputs, groups of inputs]: the blocks of a matrix that stay; None where it is
    dense. ``number`` is the layer's, ``part`` tells queries, keys and values apart (0 to 2)."""
    outputs, inputs, form = architecture.matrix(number, kind)
    if form.density == 1:
        return None
    place = (number, KINDS.index(kind), part)
    return _drawn(place, (outputs, inputs), architecture.block, form.density)


@lru_cache(maxsize=4096)
def _drawn(
    place: tuple[int, int, int], shape: tuple[int, int], block: tuple[int, int], density: float
) -> NDArray[np.bool_]:
    panels, groups = -(-shape[0] // block[1]), -(-shape[1] // block[0])
    kept = round(density * panels * groups)
    # Not NumPy's own choice of places: its order may change from version to version.
    order = np.argsort(
        np.random.Generator(np.random.PCG64([*place, *shape])).random(panels * groups),
        kind="stable",
    )
    found = np.zeros(panels * groups, np.bool_)
    found[order[:kept]] = True
    found.flags.writeable = False
    return found.reshape(panels, groups)
