"""What every controller is: something to ask for choices, and to tell what they led to.

What a controller answers depends on its seed, on the number of the trial, and on what it was
told, in that order; on nothing else. So a study that was killed goes on as it would have, and
several workers, each with a controller of its own, never draw the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...errors import InputError
from ..space.space import Decision, Scalar
from .outcome import Outcome

__all__ = ["Choosable", "Controller", "Values", "generator", "place_of", "seed_of"]

Values = Mapping[str, Scalar]
"""A choice for every decision, inactive ones too."""


class Choosable(Protocol):
    """What controllers need of a space (`ArchitectureSpace` has it)."""

    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, in the order in which they are made; phase 1 comes first."""

    def active(self, values: Values) -> Sequence[str]:
        """The names of those that matter, once those of phase 1 are made."""


class Controller(Protocol):
    """Proposes what to try next."""

    @property
    def name(self) -> str:
        """What it is called in the registry."""

    def ask(self, trial: int, draw: int = 0) -> Values:
        """Choices for the trial of that number. Another ``draw`` gives other ones, for where the
        first were tried already. Asking changes nothing."""

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """What trial ``trial`` found for ``values``, which need not be what it was asked for."""

    def state_json(self) -> dict[str, Any]:
        """All that it has learnt, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_json` gave, in a controller that was made alike.

        Raises `InputError` for anything else.
        """


def seed_of(seed: int, trial: int, draw: int) -> int:
    """A number of 32 bits for one ask."""
    return int(np.random.SeedSequence((seed, trial, draw)).generate_state(1)[0])


def generator(seed: int, trial: int, draw: int) -> np.random.Generator:
    """A stream of random numbers for one ask."""
    return np.random.default_rng((seed, trial, draw))


def place_of(decision: Decision, values: Values) -> int:
    """The place of a choice in its list; 0 for an inactive decision that was left out.

    Raises `InputError` for a value that is no choice.
    """
    if decision.name not in values:
        return 0
    value = values[decision.name]
    for place, choice in enumerate(decision.choices):
        # True is 1 to Python.
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return place
    raise InputError(f"{decision.name} cannot be {value!r}: it is none of {decision.choices}.")
