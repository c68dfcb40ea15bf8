"""What a trial found: the value that a controller is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError

__all__ = ["Outcome"]

_VERSION = 1
_OF = "an outcome"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """``accuracy``: higher is better, None where it was not worth evaluating, because a limit is
    surely missed. ``latency``: milliseconds of one text, None where it is not known. ``memory``:
    bytes. ``violations``: for each limit of the specification, by what share of it it is
    exceeded; 0 or less where it is met. ``reason``: why there is no accuracy; else empty.

    Raises `InputError` for numbers that are not finite.
    """

    accuracy: float | None
    latency: float | None
    memory: int | None = None
    violations: tuple[float, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("accuracy", "latency", "memory"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} of an outcome must be a finite number, not {value}.")
        if not all(map(math.isfinite, self.violations)):
            raise InputError(f"violations of an outcome must be finite: {self.violations}.")
        if self.feasible and (self.accuracy is None or self.latency is None):
            raise InputError("An outcome that violates nothing has an accuracy and a latency.")

    @property
    def violation(self) -> float:
        """The sum of all violations; 0 if every limit is met."""
        return sum(value for value in self.violations if value > 0)

    @property
    def feasible(self) -> bool:
        """Whether every limit is met."""
        return self.violation <= 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"version": _VERSION, **vars(self), "violations": list(self.violations)}

    @classmethod
    def from_json(cls, value: object) -> Outcome:
        """The inverse of `to_json`; raises `InputError` naming the field that is wrong."""
        found = fields.table(value, "The outcome", ("version", *cls.__dataclass_fields__), of=_OF)
        if found.get("version") != _VERSION:
            raise InputError(f"version of an outcome is {_VERSION}, not {found.get('version')!r}.")
        memory = found.get("memory")
        if memory is not None and (type(memory) is not int or memory < 0):
            raise InputError(f"memory of an outcome must be whole bytes, not {shown(memory)}.")
        return cls(
            accuracy=_number(found, "accuracy"),
            latency=_number(found, "latency"),
            memory=memory,
            violations=fields.items(found.get("violations", ()), "violations", _real),
            reason=str(found.get("reason", "")),
        )


def _number(found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    return None if value is None else _real(value, name)


def _real(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{field} of an outcome must be a number, not {value!r:.40}.")
    return float(value)
