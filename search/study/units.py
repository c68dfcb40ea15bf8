"""Limits as people write them: ``10ms``, ``64MB``, ``1%``. A unit must stand there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal

from ...errors import InputError

__all__ = [
    "enough_latency",
    "enough_loss",
    "enough_memory",
    "parse_latency",
    "parse_loss",
    "parse_memory",
    "shown_memory",
]

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµμ%]*)\s*", re.ASCII)
_TIMES = {"ms": 1.0, "s": 1000.0, "us": 1e-3}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_latency(text: str) -> float:
    """Milliseconds; raises `InputError` for what is no time above 0."""
    return _positive(text, "latency", _TIMES, "10ms or 0.5s")


def parse_memory(text: str) -> int:
    """Bytes; raises `InputError` for what is no size of at least one byte."""
    found = round(_positive(text, "memory", _SIZES, "64MB or 64MiB"))
    if found < 1:
        raise InputError(f"memory must be at least one byte, not {text!r}.")
    return found


def parse_loss(text: str) -> float:
    """Points of the metric, which is times 100; raises `InputError` unless 0 to 100 with %."""
    found = _scaled(text, "max-loss", {"%": 1.0}, "1%")
    if found > 100:
        raise InputError(f"max-loss must be from 0% to 100%, not {text!r}.")
    return found


def shown_memory(size: float) -> str:
    """Bytes for people, in millions."""
    return f"{size / 1e6:.3g} MB"


def enough_latency(milliseconds: float) -> str:
    """A limit as `parse_latency` takes it, at least that and hardly more: ``4580ms``."""
    return f"{_enough(milliseconds)}ms"


def enough_memory(size: float) -> str:
    """The same for `parse_memory`: ``112MB``."""
    return f"{_enough(math.ceil(size) / 1e6, least=1e-6)}MB"


def enough_loss(points: float) -> str:
    """The same for `parse_loss`: ``1.35%``."""
    return f"{_enough(max(points, 0.0), least=0.01)}%"


def _enough(value: float, least: float = 1e-9) -> str:
    """Three digits that count, rounded up, and no exponent."""
    exact = Decimal(str(max(value, least)))
    return f"{Context(prec=3, rounding=ROUND_CEILING).plus(exact):f}"


def _positive(text: str, name: str, units: Mapping[str, float], example: str) -> float:
    found = _scaled(text, name, units, example)
    if found <= 0:
        raise InputError(f"{name} must be above 0, not {text!r}.")
    return found


def _scaled(text: str, name: str, units: Mapping[str, float], example: str) -> float:
    parts = _NUMBER.fullmatch(text)
    if parts is None or parts[2] not in units:
        known = ", ".join(units)
        raise InputError(f"{name} is a number with a unit ({known}), as {example}, not {text!r}.")
    found = float(parts[1]) * units[parts[2]]
    if not math.isfinite(found):
        raise InputError(f"{name} is too large: {text[:40]!r}.")
    return found
