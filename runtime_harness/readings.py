"""Clocks and temperatures as they are now, and waiting until a hot device has cooled down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Reading", "cool_down", "take_reading"]

_CPUS = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")
_THERMAL = Path("/sys/class/thermal")
# Degrees below the point at which the kernel begins to slow the machine.
_MARGIN = 5.0
_LONGEST_WAIT, _PAUSE = 60.0, 1.0
_BRAKES = ("cpufreq", "processor", "cpu-")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The state of a device at a moment; what it does not tell is empty or None.

    ``mhz`` are the clocks of the measured cores, ``celsius`` the hottest sensor. ``hot`` says in
    words what is too hot or already slowed down (empty: nothing). ``waited`` is the seconds
    that were spent on cooling down just before.
    """

    when: str
    mhz: tuple[int, ...] = ()
    celsius: float | None = None
    hot: str = ""
    waited: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the reading as JSON values; what is not known is left out."""
        value = {
            "when": self.when,
            "mhz": list(self.mhz),
            "celsius": self.celsius,
            "hot": self.hot,
            "waited": round(self.waited, 3),
        }
        return {key: item for key, item in value.items() if item not in ([], None, "", 0.0)}


def take_reading(when: str, cores: Sequence[int]) -> Reading:
    """Read this machine's clocks and sensors now; ``when`` names the moment."""
    zones = sorted(_THERMAL.glob("thermal_zone*"))
    degrees = [value / 1000 for zone in zones if (value := _number(zone / "temp")) is not None]
    return Reading(
        when=when,
        mhz=_clocks(cores),
        celsius=max(degrees, default=None),
        hot=_hot(zones),
    )


def cool_down(
    when: str,
    read: Callable[[str], Reading],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Reading:
    """Wait, for a minute at most, until nothing is hot; return the last reading."""
    started = clock()
    reading = read(when)
    while reading.hot and clock() - started < _LONGEST_WAIT:
        sleep(_PAUSE)
        reading = replace(read(when), waited=clock() - started)
    return reading


def _clocks(cores: Sequence[int]) -> tuple[int, ...]:
    """MHz of each core by the kernel's governor; where there is none, as in many virtual machines,
    by what the processors say."""
    found = [_number(_CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    known = tuple(round(clock / 1000) for clock in found if clock is not None)
    if known or not cores:
        return known
    told: dict[int, int] = {}
    core = -1
    for line in (_text(_CPUINFO) or "").splitlines():
        name, _, value = map(str.strip, line.partition(":"))
        if name == "processor" and value.isdigit():
            core = int(value)
        elif name == "cpu MHz" and (clock := _as_number(value)) is not None:
            told[core] = round(clock)
    return tuple(told[core] for core in cores if core in told)


def _hot(zones: Sequence[Path]) -> str:
    for zone in zones:
        degrees, limit = _number(zone / "temp"), _first_trip(zone)
        if degrees is not None and limit is not None and degrees >= limit - 1000 * _MARGIN:
            name = _text(zone / "type") or zone.name
            return f"{name} is at {degrees / 1000:.0f} degrees Celsius, near its limit"
    for brake in sorted(_THERMAL.glob("cooling_device*")):
        kind = (_text(brake / "type") or "").lower()
        if any(word in kind for word in _BRAKES) and (_number(brake / "cur_state") or 0) > 0:
            return f"the kernel slows the processor down ({kind})"
    return ""


def _first_trip(zone: Path) -> float | None:
    """The lowest temperature, in thousandths, at which the kernel slows something down."""
    limits = []
    for kind in zone.glob("trip_point_*_type"):
        if _text(kind) in ("passive", "hot"):
            limit = _number(kind.with_name(kind.name.replace("_type", "_temp")))
            # Some firmware has points that mean "none": zero or below.
            if limit is not None and limit > 0:
                limits.append(limit)
    return min(limits, default=None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    return None if text is None else _as_number(text)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
