"""One measurement: a frozen value with its raw samples, that round-trips through JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .device import DispatchTime

__all__ = ["SCHEMA", "Measurement"]

SCHEMA = 2
"""The version of a measurement's fields."""

_MOST = 2**63 - 1  # the largest number of SQLite


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How long one call of a model takes on a device. Times are wall-clock milliseconds.

    ``samples_ms`` holds every timed call in order, in ``rounds`` rounds of as many calls each,
    and ``warmup_ms`` the first of those before. ``median_ms``, ``p90_ms`` and ``p99_ms`` are
    computed from the samples, outliers included; ``outliers`` is their number. ``interval``
    holds the median at 95 %. ``stable`` is the verdict on them and ``reason`` its grounds.

    ``relative`` is the time over that of the reference workload in the same rounds and
    ``relative_interval`` the interval of it; ``reference`` tells the workload (bundle, target,
    median_ms, samples_ms). They are None where no workload runs.

    ``emulated`` times are not those of real hardware. ``peak_bytes`` is the largest resident
    memory of a process that runs the module and nothing else. ``numerics_ok`` says whether the
    outputs were within tolerance just before (None: the bundle has no reference for this
    length). ``bundle`` is the SHA-256 of its manifest and ``module`` that of the module.
    ``cores`` are those it was kept on (None: any). ``dispatches`` are the times of single
    dispatches, if they were asked for. ``fingerprint`` stands for the device with all that
    ``device_facts`` tells. ``protocol`` is the version of the measuring protocol.
    ``environment`` (with clocks, temperatures and disturbances during the measurement) and
    ``device_details`` hold JSON values.
    """

    device: str
    target: str
    seq_len: int
    batch: int
    threads: int
    precision: str
    model: str
    bundle: str
    module: str
    median_ms: float
    interval: tuple[float, float]
    p90_ms: float
    p99_ms: float
    samples_ms: tuple[float, ...]
    rounds: int
    warmup_ms: tuple[float, ...] = ()
    outliers: int = 0
    stable: bool
    reason: str
    relative: float | None = None
    relative_interval: tuple[float, float] | None = None
    reference: dict[str, Any] | None = None
    emulated: bool
    peak_bytes: int | None
    numerics_ok: bool | None
    cores: tuple[int, ...] | None = None
    method: str
    protocol: int
    fingerprint: str
    device_facts: dict[str, Any] = field(default_factory=dict)
    dispatches: tuple[DispatchTime, ...] = ()
    device_details: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def samples_by_round(self) -> tuple[tuple[float, ...], ...]:
        """Return the timed calls of each round."""
        calls = len(self.samples_ms) // self.rounds
        return tuple(
            self.samples_ms[index * calls : (index + 1) * calls] for index in range(self.rounds)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON values; ``from_json`` gives back an equal one."""
        value = {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}
        value["dispatches"] = [dataclasses.asdict(item) for item in self.dispatches]
        return value

    @classmethod
    def from_json(cls, value: object) -> Measurement:
        """Build from what ``to_json`` gave; raises InputError on anything else."""
        if not isinstance(value, Mapping):
            raise InputError(f"a measurement must be a JSON object, not {type(value).__name__}")
        schema = value.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise InputError(
                f"the measurement has schema {schema!r:.20}, and this canao reads {SCHEMA}"
            )
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
        if found.rounds < 1 or not found.samples_ms or len(found.samples_ms) % found.rounds:
            raise InputError(
                f"a measurement's samples_ms must be {found.rounds} rounds of as many samples, "
                f"not {len(found.samples_ms)} in all"
            )
        times = (*found.samples_ms, *found.warmup_ms, *found.interval, found.median_ms)
        if min(times) < 0 or min(found.seq_len, found.batch, found.threads) < 1:
            raise InputError(
                "a measurement's times must not be negative, and its seq_len, batch and threads "
                "must be at least 1"
            )
        return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _typed(name: str, kind: str, value: object) -> object:
    if value is None and kind.endswith("| None"):
        return None
    kind = kind.removesuffix(" | None")
    found = _READERS[kind](value)
    if found is None:
        raise InputError(f"a measurement's {name} must be {kind}, not {value!r:.80}")
    return found


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_whole(value)


def _is_whole(value: object) -> bool:
    good = isinstance(value, int) and not isinstance(value, bool)
    return good and -_MOST <= value <= _MOST  # type: ignore[operator]


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _numbers(value: Any) -> tuple[float, ...] | None:
    good = isinstance(value, list) and all(map(_is_number, value))
    return tuple(map(float, value)) if good else None


def _pair(value: Any) -> tuple[float, ...] | None:
    found = _numbers(value)
    return found if found is not None and len(found) == 2 else None


def _cores(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(map(_is_whole, value)) else None


def _dispatches(value: Any) -> tuple[DispatchTime, ...] | None:
    good = isinstance(value, list) and all(
        isinstance(item, dict)
        and item.keys() == {"name", "ms", "calls"}
        and isinstance(item["name"], str)
        and _is_number(item["ms"])
        and _is_whole(item["calls"])
        for item in value
    )
    return (
        tuple(DispatchTime(**{**item, "ms": float(item["ms"])}) for item in value)
        if good
        else None
    )


# By the annotation of a field; each returns None for what is not of its kind.
_READERS: dict[str, Callable[[Any], Any]] = {
    "str": lambda value: value if isinstance(value, str) else None,
    "bool": lambda value: value if isinstance(value, bool) else None,
    "int": lambda value: value if _is_whole(value) else None,
    "float": _number,
    "tuple[float, ...]": _numbers,
    "tuple[float, float]": _pair,
    "tuple[int, ...]": _cores,
    "tuple[DispatchTime, ...]": _dispatches,
    "dict[str, Any]": lambda value: value if isinstance(value, dict) else None,
}
