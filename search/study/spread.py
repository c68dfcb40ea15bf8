"""Architectures of a space that have little in common, for when nothing is known of a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UnsupportedError
from ..program.derive import program_of
from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace

__all__ = ["drawn_from", "spread"]

_POOL = 192


def drawn_from(space: ArchitectureSpace, target: str, seed: int) -> list[Architecture]:
    """Different architectures by their work, without those whose program cannot be derived.

    Raises `UnsupportedError` where none can.
    """
    rng = np.random.default_rng((seed, 2))
    found: dict[str, Architecture] = {}
    refused: UnsupportedError | None = None
    for one in (space.sample(rng) for _ in range(_POOL)):
        try:
            program_of(one, target)
        except UnsupportedError as error:
            refused = error
        else:
            found[one.digest] = one
    if refused is not None and not found:
        raise refused
    return sorted(found.values(), key=lambda one: one.costs().flops)


def spread(ordered: Sequence[Architecture], count: int, seed: int) -> list[Architecture]:
    """At most ``count``, evenly by their place in the order, which are far apart from the first
    ones on."""
    count = min(count, len(ordered))
    chosen = [ordered[(2 * place + 1) * len(ordered) // (2 * count)] for place in range(count)]
    return [chosen[place] for place in np.random.default_rng(seed).permutation(count)]
