"""A frozen record as JSON values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["shallow_json"]


def shallow_json(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name; tuples become lists, other records stay."""
    return {
        item.name: _listed(part) for item in fields(value) for part in [getattr(value, item.name)]
    }


def _listed(value: Any) -> Any:
    """Tuples as lists, one level of nesting included."""
    if not isinstance(value, tuple):
        return value
    return [list(part) if isinstance(part, tuple) else part for part in value]
