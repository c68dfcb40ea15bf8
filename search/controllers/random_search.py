"""Choices drawn alike, whatever came of them: what every other controller must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .base import Choosable, Values, generator
from .outcome import Outcome

__all__ = ["RandomController"]


class RandomController:
    """Each decision drawn alike from its choices."""

    name = "random"

    def __init__(self, space: Choosable, *, seed: int = 0) -> None:
        self._decisions = space.decisions()
        self._seed = seed

    def ask(self, trial: int, draw: int = 0) -> Values:
        """See `Controller`."""
        rng = generator(self._seed, trial, draw)
        return {d.name: d.choices[int(rng.integers(len(d.choices)))] for d in self._decisions}

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """Nothing is learnt."""

    def state_json(self) -> dict[str, Any]:
        """See `Controller`."""
        return {"name": self.name}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        if state.get("name") != self.name:
            raise InputError(f"This is the state of {state.get('name')!r:.40}, not of random.")
