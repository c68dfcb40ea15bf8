"""Trials that come before a controller's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .base import Controller, Values
from .outcome import Outcome

__all__ = ["WarmStart"]


class WarmStart:
    """Proposes ``first``, one a trial, then what ``controller`` does, which is told of all."""

    def __init__(self, controller: Controller, first: Sequence[Values]) -> None:
        self._controller = controller
        self._first = tuple(first)

    @property
    def name(self) -> str:
        """See `Controller`."""
        return self._controller.name

    def ask(self, trial: int, draw: int = 0) -> Values:
        """See `Controller`."""
        if draw == 0 and trial < len(self._first):
            return self._first[trial]
        return self._controller.ask(trial, draw)

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """See `Controller`."""
        self._controller.tell(trial, values, outcome)

    def state_json(self) -> dict[str, Any]:
        """See `Controller`."""
        return self._controller.state_json()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        self._controller.restore(state)
