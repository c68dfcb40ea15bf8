"""One row of a store: a measurement, and what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..measurement import Measurement

__all__ = ["StoredTiming"]

_SCHEMA = 1
_KEYS = {"schema", "added", "architecture", "recipe", "measurement"}


@dataclass(frozen=True, kw_only=True)
class StoredTiming:
    """A measurement with the ``architecture`` and the ``recipe`` (JSON objects, or None).

    ``added`` is when it was stored, in ISO 8601 and UTC.
    """

    measurement: Measurement
    architecture: dict[str, Any] | None
    recipe: dict[str, Any] | None
    added: str

    @property
    def digest(self) -> str:
        """SHA-256 of all it tells: equal for the same row, wherever it was copied."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; ``from_json`` gives back an equal one."""
        return {
            "schema": _SCHEMA,
            "added": self.added,
            "architecture": self.architecture,
            "recipe": self.recipe,
            "measurement": self.measurement.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> StoredTiming:
        """Build from what ``to_json`` gave; raises InputError on anything else."""
        if not isinstance(value, Mapping) or value.keys() != _KEYS:
            raise InputError(f"a timing must be a JSON object with {', '.join(sorted(_KEYS))}")
        if value["schema"] != _SCHEMA:
            raise InputError(
                f"the timing has schema {value['schema']!r:.20}, and this canao reads {_SCHEMA}"
            )
        if not isinstance(value["added"], str):
            raise InputError(f"a timing's added must be a text, not {value['added']!r:.80}")
        return cls(
            measurement=Measurement.from_json(value["measurement"]),
            architecture=object_or_none("architecture", value["architecture"]),
            recipe=object_or_none("recipe", value["recipe"]),
            added=value["added"],
        )


def object_or_none(name: str, value: object) -> dict[str, Any] | None:
    """Return a JSON object as it will be read again; raises InputError for anything else."""
    if value is None:
        return None
    try:
        text = json.dumps(dict(value), allow_nan=False)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(f"the {name} of a timing must be a JSON object: {error}") from error
    found: dict[str, Any] = json.loads(text)
    return found
