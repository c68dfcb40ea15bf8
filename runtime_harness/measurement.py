"""One measurement: a frozen value with its raw samples, that round-trips through JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError

__all__ = ["SCHEMA", "Measurement"]

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How long one call of a model takes on a device. Times are wall-clock milliseconds.

    ``samples_ms`` holds every timed call in order, ``warmup_ms`` those before. ``median_ms``,
    ``p90_ms`` and ``p99_ms`` are computed from the samples, outliers included. ``stable`` is
    the verdict on them and ``reason`` its grounds. ``emulated`` times are not those of
    real hardware. ``peak_bytes`` is the largest resident memory of the measuring process.
    ``numerics_ok`` says whether the outputs were within tolerance just before (None: the
    bundle has no reference for this length). ``bundle`` is the SHA-256 of its manifest.
    ``environment`` and ``device_details`` hold JSON values.
    """

    device: str
    target: str
    seq_len: int
    batch: int
    threads: int
    precision: str
    model: str
    bundle: str
    median_ms: float
    p90_ms: float
    p99_ms: float
    samples_ms: tuple[float, ...]
    warmup_ms: tuple[float, ...] = ()
    stable: bool
    reason: str
    emulated: bool
    peak_bytes: int | None
    numerics_ok: bool | None
    method: str
    device_details: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON values; ``from_json`` gives back an equal one."""
        return {
            item.name: list(value) if isinstance(value, tuple) else value
            for item in dataclasses.fields(self)
            for value in [getattr(self, item.name)]
        }

    @classmethod
    def from_json(cls, value: object) -> Measurement:
        """Build from what ``to_json`` gave; raises InputError on anything else."""
        if not isinstance(value, Mapping):
            raise InputError(f"a measurement must be a JSON object, not {type(value).__name__}")
        fields = {item.name: item for item in dataclasses.fields(cls)}
        unknown = sorted(str(key) for key in value if key not in fields)
        if unknown:
            raise InputError(f"a measurement has no field {unknown[0]!r}")
        arguments: dict[str, Any] = {}
        for name, item in fields.items():
            required = (
                item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            )
            if name in value:
                arguments[name] = _typed(name, str(item.type), value[name])
            elif required:
                raise InputError(f"a measurement needs the field {name!r}")
        found = cls(**arguments)
        if found.schema != SCHEMA:
            raise InputError(
                f"the measurement has schema {found.schema}, and this canao reads {SCHEMA}"
            )
        return found


def _typed(name: str, kind: str, value: object) -> object:
    if value is None and kind.endswith("| None"):
        return None
    kind = kind.removesuffix(" | None")
    if kind == "tuple[float, ...]" and isinstance(value, list) and all(map(_is_number, value)):
        return tuple(float(item) for item in value)
    if kind == "float" and _is_number(value):
        return float(value)  # type: ignore[arg-type]
    plain = {"str": str, "bool": bool, "int": int, "dict[str, Any]": dict}.get(kind)
    if (
        plain is not None
        and isinstance(value, plain)
        and (plain is bool) == (isinstance(value, bool))
    ):
        return value
    raise InputError(f"a measurement's {name} must be {kind}, not {value!r:.80}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
