"""What can be hoped for in a space, before anything of it is tried."""

from __future__ import annotations

import numpy as np

from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace
from .problem import Problem

__all__ = ["fastest"]


def fastest(space: ArchitectureSpace, problem: Problem, seed: int) -> tuple[float, int]:
    """(the lowest latency in milliseconds, the least memory in bytes) that can be hoped for in a
    space: of its extremes and of some hundred drawn ones."""
    rng = np.random.default_rng((seed, 1))
    looked = [*_extremes(space), *(space.sample(rng) for _ in range(128))]
    found = problem.predict(looked)
    return (
        min(one.latency_least for one in found),
        min(one.memory_least for one in found),
    )


def _extremes(space: ArchitectureSpace) -> list[Architecture]:
    """The smallest sizes, with each precision and density."""
    found = []
    decisions = space.decisions()
    for what in ("precision", "density"):
        places = max(len(d.choices) for d in decisions if what in d.name)
        for place in range(places):
            values = {}
            for decision in decisions:
                choices = decision.choices
                if what in decision.name:
                    values[decision.name] = choices[min(place, len(choices) - 1)]
                elif all(isinstance(choice, int | float) for choice in choices):
                    values[decision.name] = min(choices)  # type: ignore[type-var]
                else:
                    values[decision.name] = choices[-1]
            found.append(space.build(values))
    return found
