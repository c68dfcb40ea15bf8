"""A controller that proposes members of a table alone: for comparing controllers on records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .base import Choosable, Controller, Values, place_of
from .outcome import Outcome

__all__ = ["OnTable"]


class OnTable:
    """``controller``, whose every proposal becomes the nearest member of ``table`` that was not
    told yet.

    Near is by the decisions that matter in either: numbers by their place among the choices, the
    rest by being equal or not. Raises `InputError` for an empty table, and once all were told.
    """

    def __init__(self, controller: Controller, space: Choosable, table: Sequence[Values]) -> None:
        if not table:
            raise InputError("A table of architectures must have some.")
        self._controller = controller
        self._space = space
        self._decisions = space.decisions()
        self._table = [dict(values) for values in table]
        self._codes = np.stack([self._code(values) for values in self._table])
        self._left = np.ones(len(table), dtype=bool)

    @property
    def name(self) -> str:
        """See `Controller`."""
        return self._controller.name

    def ask(self, trial: int, draw: int = 0) -> Values:
        """See `Controller`."""
        if not self._left.any():
            raise InputError(f"All {len(self._table)} members of the table were told.")
        code = self._code(self._controller.ask(trial, draw))
        both = ~np.isnan(self._codes) & ~np.isnan(code)
        one = np.isnan(self._codes) ^ np.isnan(code)
        gaps = np.where(both, np.abs(self._codes - code), 0.0)
        distances = np.where(self._left, gaps.sum(1) + one.sum(1), np.inf)
        return self._table[int(np.argmin(distances))]

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """See `Controller`."""
        code = self._code(values)
        same = (self._codes == code) | (np.isnan(self._codes) & np.isnan(code))
        self._left &= ~same.all(1)
        self._controller.tell(trial, values, outcome)

    def state_json(self) -> dict[str, Any]:
        """See `Controller`."""
        left = [int(place) for place in np.flatnonzero(self._left)]
        return {"name": self.name, "left": left, "controller": self._controller.state_json()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        try:
            left = np.zeros(len(self._table), dtype=bool)
            left[state["left"]] = True
            inner = state["controller"]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"This is no state of {self.name} on this table.") from error
        self._controller.restore(inner)
        self._left = left

    def _code(self, values: Values) -> Any:
        """One number for each decision and choice, from 0 to 1; NaN where it does not matter."""
        active = set(self._space.active(values))
        parts: list[float] = []
        for decision in self._decisions:
            count = len(decision.choices)
            place = place_of(decision, values)
            matters = decision.name in active
            if all(isinstance(c, int | float) and type(c) is not bool for c in decision.choices):
                parts.append(place / max(1, count - 1) if matters else np.nan)
            else:  # one half for each: two that differ are 1 apart
                parts += [(place == n) / 2 if matters else np.nan for n in range(count)]
        return np.array(parts)
