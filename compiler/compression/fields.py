"""Reading untrusted JSON or TOML values: each is checked, each error names its field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ...errors import InputError

__all__ = ["boolean", "integer", "items", "number", "pair", "shown", "table", "text", "whole"]

T = TypeVar("T")

_MOST_ITEMS = 4096
_LONGEST_TEXT = 1024
_LARGEST = 1 << 31


def shown(value: object) -> str:
    """``value`` as it may stand in a message: on one line, and short."""
    try:
        line = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits has no spelling
        return f"a {type(value).__name__}"
    return line if len(line) <= 60 else line[:57] + "..."


def table(
    value: object, field: str, known: Iterable[str], *, of: str = "a recipe"
) -> Mapping[str, Any]:
    """A table with string keys, none of which is outside ``known``: the fields ``of`` what."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{field} must be a table of fields, not {shown(value)}.")
    names = tuple(known)
    for key in value:
        if key not in names:
            where = "" if field.startswith("The ") else f"{field}."
            raise InputError(
                f"{where}{shown(key)[1:-1]} is no field of {of}: there are {', '.join(names)}."
            )
    return value


def items(value: object, field: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    """A list, each entry read by ``read`` under its own name."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InputError(f"{field} must be a list, not {shown(value)}.")
    if len(value) > _MOST_ITEMS:
        raise InputError(f"{field} has {len(value)} entries; {_MOST_ITEMS} are the most.")
    return tuple(read(entry, f"{field}[{index}]") for index, entry in enumerate(value))


def integer(value: object, field: str) -> int:
    """A positive whole number."""
    return whole(value, field, least=1)


def whole(value: object, field: str, *, least: int = 0) -> int:
    """A whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST:
        kind = "positive whole number" if least == 1 else f"whole number from {least} on"
        raise InputError(f"{field} must be a {kind}, not {shown(value)}.")
    return value


def number(value: object, field: str) -> float:
    """A share: above 0, at most 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{field} must be a number above 0 and at most 1, not {shown(value)}.")
    if not (math.isfinite(value) and 0 < value <= 1):
        raise InputError(f"{field} must be a number above 0 and at most 1, not {shown(value)}.")
    return float(value)


def boolean(value: object, field: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InputError(f"{field} must be true or false, not {shown(value)}.")
    return value


def text(value: object, field: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT:
        raise InputError(f"{field} must be a text that is not empty, not {shown(value)}.")
    return value


def pair(value: object, field: str) -> tuple[int, int]:
    """Two positive whole numbers."""
    found = items(value, field, integer)
    if len(found) != 2:
        raise InputError(f"{field} must be two numbers, not {len(found)}.")
    return found[0], found[1]
