"""How good an architecture is, and how that was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError

__all__ = ["KINDS", "Accuracy"]

VERSION = 1
KINDS = ("shared", "adapted", "trained")
"""With shared weights as they are; after a few steps of training; after all of compression."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """``value`` of ``metric`` on ``n`` rows, with its 95 % ``interval`` over other such rows;
    ``kind`` is one of `KINDS`."""

    version: int = VERSION
    value: float
    interval: tuple[float, float]
    kind: str
    metric: str
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives back an equal one."""
        return {**vars(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, value: object, where: str = "The accuracy") -> Accuracy:
        """From what `to_json` gave; InputError, naming the field, otherwise."""
        found = fields.table(value, where, cls.__dataclass_fields__, of="an accuracy")
        if found.get("version") != VERSION or isinstance(found["version"], bool):
            raise InputError(f"{where}: version must be {VERSION}.")
        if found.get("kind") not in KINDS:
            raise InputError(f"{where}: kind must be one of {', '.join(KINDS)}.")
        ends = fields.items(found.get("interval"), f"{where}: interval", _number)
        if len(ends) != 2:
            raise InputError(f"{where}: interval must be two numbers, not {len(ends)}.")
        return cls(
            value=_number(found.get("value"), f"{where}: value"),
            interval=(ends[0], ends[1]),
            kind=found["kind"],
            metric=fields.text(found.get("metric"), f"{where}: metric"),
            n=fields.integer(found.get("n"), f"{where}: n"),
        )


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{field} must be a finite number, not {shown(value)}.")
    return float(value)
