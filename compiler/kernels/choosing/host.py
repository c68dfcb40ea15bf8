"""Which CPU this is, and for which targets what was measured on it counts."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path

from .... import targets
from ....targets import Target, machine_arch

__all__ = ["cpu_key", "is_alike", "is_this_machine"]

_CPUINFO = Path("/proc/cpuinfo")
# What tells one CPU from another: on x86 the first four, on ARM the last three.
_TELLING = (
    *("model name", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU part", "CPU variant"),
)


@functools.cache
def cpu_key() -> str:
    """The CPU's model and a digest of the features that code is generated for."""
    features = ",".join(sorted(targets.get("host").features))
    digest = hashlib.sha256(features.encode()).hexdigest()[:12]
    return f"{machine_arch()} {_model()} {digest}"


def is_alike(key: str, other: str) -> bool:
    """Whether two CPUs (`cpu_key`) are of one architecture and have the same features."""
    return _kind(key) == _kind(other)


def _kind(key: str) -> tuple[str, str]:
    return key.partition(" ")[0], key.rpartition(" ")[2]


def is_this_machine(target: Target) -> bool:
    """Whether code for ``target`` is code for this very CPU, narrower precisions left out.

    Only then do times that were measured here say anything: never for Vulkan, another
    architecture, or a CPU with fewer features.
    """
    if target.kind != "cpu" or target.arch != machine_arch() or target.cpu:
        return False
    host = targets.get("host").features
    return set(target.features) in (set(host), set(_without_tiles(host)))


def _without_tiles(features: Iterable[str]) -> list[str]:
    return [feature for feature in features if not feature.startswith("amx-")]


def _model() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return "/".join(fields[key] for key in _TELLING if key in fields) or "unknown"
