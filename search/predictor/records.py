"""One recorded measurement: an architecture's latency on a device, as a line of JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...compiler.compression.fields import boolean, items, shown, text, whole
from ...errors import InputError
from ..space.architecture import Architecture
from .fields import real

__all__ = ["Record", "Setting"]

_VERSION = 1
_OPTIONAL = (
    "cpu_features", "relative_interval", "repeat_relative", "dispatches", "calls", "stable",
    "peak_bytes", "digest",
)  # fmt: skip
_KEYS = (
    "version", "device", "fingerprint", "emulated", "threads", "target", "protocol",
    "architecture", "relative", "median_ms",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how was measured: only latencies of one setting may be compared or mixed.

    ``fingerprint`` stands for the device called ``device``; ``protocol`` is the version of the
    measuring protocol. ``cpu_features`` are told where they are known, and tell nothing apart.
    """

    device: str
    fingerprint: str
    emulated: bool
    threads: int
    target: str
    cpu_features: tuple[str, ...] = field(default=(), compare=False)
    protocol: int

    def __str__(self) -> str:
        kind = ", emulated" if self.emulated else ""
        plural = "s" if self.threads > 1 else ""
        return (
            f"{self.device} ({self.fingerprint}{kind}), {self.target}, {self.threads} "
            f"thread{plural}, protocol {self.protocol}"
        )

    @property
    def place(self) -> tuple[str, int, tuple[str, ...]]:
        """Target, threads and features of the CPU: what a program depends on."""
        return self.target, self.threads, self.cpu_features

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {**vars(self), "cpu_features": list(self.cpu_features)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Setting:
        """Read one from the fields of an object that may have others; raises `InputError`."""
        return cls(
            device=text(value.get("device"), "device"),
            fingerprint=text(value.get("fingerprint"), "fingerprint"),
            emulated=boolean(value.get("emulated"), "emulated"),
            threads=whole(value.get("threads"), "threads", least=1),
            target=text(value.get("target"), "target"),
            cpu_features=items(value.get("cpu_features", []), "cpu_features", text),
            protocol=whole(value.get("protocol"), "protocol", least=1),
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """An architecture's latency in a setting.

    ``relative``: the time of a call over that of the reference workload in the same rounds;
    ``relative_interval``: its 95 % interval; ``repeat_relative``: the same measured again, at
    other times; ``median_ms``: of a call, in milliseconds. ``dispatches``: (name, milliseconds)
    of each dispatch of a call in the order of execution, or with the calls of a function together
    where the device does not tell them apart; empty where nobody looked. ``calls``: their names
    alone, those of ``dispatches`` where there are any. ``stable``: the verdict of the
    measurement; ``peak_bytes``: the most memory of a process that runs it.
    """

    setting: Setting
    architecture: Architecture
    relative: float
    relative_interval: tuple[float, float] | None = None
    median_ms: float
    repeat_relative: tuple[float, ...] = ()
    dispatches: tuple[tuple[str, float], ...] = ()
    calls: tuple[str, ...] = ()
    stable: bool = True
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.dispatches:
            object.__setattr__(self, "calls", tuple(name for name, _ in self.dispatches))

    @property
    def typical(self) -> float:
        """The median of all relative latencies measured of it."""
        return statistics.median((self.relative, *self.repeat_relative))

    @property
    def spread(self) -> float:
        """Half of the relative width of the interval; 0 where there is none."""
        if self.relative_interval is None:
            return 0.0
        low, high = self.relative_interval
        return (high - low) / (2 * self.relative)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        interval = self.relative_interval
        return {
            "version": _VERSION,
            **self.setting.to_json(),
            "architecture": self.architecture.to_json(),
            "relative": self.relative,
            "relative_interval": None if interval is None else list(interval),
            "median_ms": self.median_ms,
            "repeat_relative": list(self.repeat_relative),
            "dispatches": [list(one) for one in self.dispatches],
            "calls": [] if self.dispatches else list(self.calls),
            "stable": self.stable,
            "peak_bytes": self.peak_bytes,
        }

    @classmethod
    def from_json(cls, value: object) -> Record:
        """Read one. Raises `InputError`, naming the field that is wrong. A ``digest`` that names
        the architecture asked for (the compiler may have kept layers wider) is passed over."""
        if not isinstance(value, Mapping):
            raise InputError(f"A recorded measurement must be an object, not {shown(value)}.")
        for key in _KEYS:
            if key not in value:
                raise InputError(f"A recorded measurement needs the field {key}.")
        for key in value:
            if key not in _KEYS and key not in _OPTIONAL:
                raise InputError(f"{shown(key)} is no field of a recorded measurement.")
        if isinstance(value["version"], bool) or value["version"] != _VERSION:
            raise InputError(
                f"version of the measurement must be {_VERSION}: {shown(value['version'])}."
            )
        return cls(
            setting=Setting.from_json(value),
            architecture=Architecture.from_json(value["architecture"]),
            relative=real(value["relative"], "relative", above=0),
            relative_interval=_interval(value.get("relative_interval")),
            median_ms=real(value["median_ms"], "median_ms", above=0),
            repeat_relative=items(value.get("repeat_relative") or [], "repeat_relative", _time),
            dispatches=items(value.get("dispatches") or [], "dispatches", _dispatch),
            calls=items(value.get("calls") or [], "calls", text),
            stable=boolean(value.get("stable", True), "stable"),
            peak_bytes=_memory(value.get("peak_bytes")),
        )


def _time(value: object, field: str) -> float:
    return real(value, field, above=0)


def _memory(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise InputError(f"peak_bytes must be a positive whole number, not {shown(value)}.")


def _interval(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    found = items(value, "relative_interval", _time)
    if len(found) != 2 or found[0] > found[1]:
        raise InputError(f"relative_interval must be a low and a high end, not {shown(value)}.")
    return found[0], found[1]


def _dispatch(value: object, field: str) -> tuple[str, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InputError(f"{field} must be a name and milliseconds, not {shown(value)}.")
    return text(value[0], f"{field}[0]"), real(value[1], f"{field}[1]", above=-1e-9)
