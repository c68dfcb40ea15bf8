"""The circumstances of a measurement: CPU, clocks, load, affinity, versions."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["collect", "cpu_count", "cpu_model"]

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_PACKAGES = ("canao", "iree-base-runtime", "numpy")


def collect() -> dict[str, Any]:
    """Return what could change a measurement, as JSON values; what cannot be read is left out.

    Frequencies are in MHz, temperatures in degrees Celsius, memory in bytes, ``load`` the
    averages over 1, 5 and 15 minutes, ``affinity`` the CPUs this process may use.
    """
    found: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": cpu_count(),
        "arch": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions(),
        "affinity": _affinity(),
        "load": _load(),
        "memory_bytes": _memory(),
        "virtual": _is_virtual(),
        "governors": _distinct("cpufreq/scaling_governor"),
        "max_mhz": _mhz("cpufreq/cpuinfo_max_freq"),
        "current_mhz": _mhz("cpufreq/scaling_cur_freq") or _cpuinfo_mhz(),
        "boost": _boost(),
        "temperatures_c": _temperatures(),
    }
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def cpu_model() -> str:
    """Return the CPU's name as the kernel tells it, else its architecture."""
    for key in ("model name", "Hardware", "Model"):
        values = _cpuinfo(key)
        if values:
            return values[0]
    return platform.processor() or platform.machine() or "unknown"


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    affinity = _affinity()
    return len(affinity) if affinity else os.cpu_count() or 1


def _cpuinfo(key: str) -> list[str]:
    lines = (_read(_CPUINFO) or "").splitlines()
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key and value.strip()]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _per_cpu(name: str) -> list[str]:
    paths = sorted(_CPUS.glob(f"cpu[0-9]*/{name}"))
    return [text for text in map(_read, paths) if text is not None]


def _distinct(name: str) -> list[str]:
    return sorted(set(_per_cpu(name)))


def _mhz(name: str) -> list[int]:
    return [int(text) // 1000 for text in _per_cpu(name) if text.isdigit()]


def _cpuinfo_mhz() -> list[int]:
    found = []
    for text in _cpuinfo("cpu MHz"):
        with contextlib.suppress(ValueError):
            found.append(round(float(text)))
    return found


def _boost() -> bool | None:
    text = _read(_CPUS / "cpufreq/boost")
    if text is not None:
        return text == "1"
    text = _read(_CPUS / "intel_pstate/no_turbo")
    return None if text is None else text == "0"


def _temperatures() -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        name, value = _read(zone / "type"), _read(zone / "temp")
        if name and value and value.lstrip("-").isdigit():
            found[f"{name} ({zone.name.removeprefix('thermal_zone')})"] = int(value) / 1000
    return found


def _affinity() -> list[int]:
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def _load() -> list[float]:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return []


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _is_virtual() -> bool | None:
    flags = _cpuinfo("flags")
    return "hypervisor" in flags[0].split() if flags else None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
