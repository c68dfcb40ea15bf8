"""Reading and checking what a space offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError
from ...targets import PRECISIONS

__all__ = ["OF", "MatrixChoices", "choices"]

OF = "a space"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MatrixChoices:
    """What one kind of matrix may be: its precisions, the shares of its blocks that stay."""

    precisions: tuple[str, ...] = ("f32",)
    densities: tuple[float, ...] = (1.0,)

    @classmethod
    def from_json(cls, value: object, field: str) -> MatrixChoices:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("precisions", "densities"), of=OF)
        return cls(
            precisions=choices(found, f"{field}.", "precisions", _precision, ("f32",)),
            densities=choices(found, f"{field}.", "densities", fields.number, (1.0,)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"precisions": list(self.precisions), "densities": list(self.densities)}


def choices(
    found: Mapping[str, Any],
    prefix: str,
    name: str,
    read: Callable[[object, str], T],
    default: tuple[T, ...] | None = None,
) -> tuple[T, ...]:
    """The list ``name`` of a table, each entry read by ``read``; one entry may stand alone.

    Raises `InputError` where it is missing and has no default, or is empty (then there is nothing
    to choose from), or has an entry twice.
    """
    field = prefix + name
    if name not in found:
        if default is None:
            raise InputError(f"{field} is missing: list what the search may choose from.")
        return default
    value = found[name]
    listed = value if isinstance(value, (list, tuple)) else [value]
    result = fields.items(listed, field, read)
    if not result:
        raise InputError(f"{field} is empty, so the space is: give at least one choice.")
    if len(set(result)) != len(result):
        raise InputError(f"{field} has a choice twice: {shown(value)}.")
    return result


def _precision(value: object, field: str) -> str:
    if value not in PRECISIONS:
        raise InputError(f"{field} must be one of {', '.join(PRECISIONS)}, not {shown(value)}.")
    return str(value)
