"""What the model that is searched must meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...compiler.compression import fields
from ...errors import InputError
from .units import parse_latency, parse_loss, parse_memory, shown_memory

__all__ = ["Specification"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Specification:
    """``latency_ms``: of one text on the device; ``memory_bytes``: the largest resident memory
    of a process that runs the model; ``max_loss``: points of the metric (times 100) below the
    teacher. None: no limit. Raises `InputError` for a limit that no number can meet.
    """

    latency_ms: float | None = None
    memory_bytes: int | None = None
    max_loss: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("latency_ms", 1e-9), ("memory_bytes", 1), ("max_loss", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name} of the specification must be a number, not {value!r}.")
            if not math.isfinite(value) or value < least:
                bound = "0 or more" if name == "max_loss" else "above 0"
                raise InputError(f"{name} of the specification must be {bound}, not {value}.")

    @classmethod
    def parse(
        cls, *, latency: str | None, memory: str | None, max_loss: str | None
    ) -> Specification:
        """From texts with units; raises `InputError` naming the one that is wrong."""
        return cls(
            latency_ms=None if latency is None else parse_latency(latency),
            memory_bytes=None if memory is None else parse_memory(memory),
            max_loss=None if max_loss is None else parse_loss(max_loss),
        )

    def violations(self, latency_ms: float, memory_bytes: float) -> tuple[float, ...]:
        """By what share each limit is exceeded (negative: what is left), latency, then memory;
        limits that are not set are left out."""
        pairs = ((latency_ms, self.latency_ms), (memory_bytes, self.memory_bytes))
        return tuple(value / limit - 1 for value, limit in pairs if limit is not None)

    def __str__(self) -> str:
        parts = []
        if self.latency_ms is not None:
            parts.append(f"latency at most {self.latency_ms:g} ms")
        if self.memory_bytes is not None:
            parts.append(f"memory at most {shown_memory(self.memory_bytes)}")
        if self.max_loss is not None:
            parts.append(f"loss at most {self.max_loss:g} points")
        return ", ".join(parts) or "no limits"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"version": _VERSION, **vars(self)}

    @classmethod
    def from_json(cls, value: object) -> Specification:
        """The inverse of `to_json`; raises `InputError` naming the field that is wrong."""
        names = ("version", *cls.__dataclass_fields__)
        found = dict(fields.table(value, "The specification", names, of="a specification"))
        if found.pop("version", None) != _VERSION:
            raise InputError(f"version of the specification must be {_VERSION}.")
        return cls(**found)
