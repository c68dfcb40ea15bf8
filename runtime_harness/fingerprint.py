"""Which device something was measured on, as a short digest of what its speed depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .environment import collect

if TYPE_CHECKING:
    from .device import Device, RawTiming

__all__ = ["facts_of", "fingerprint", "fingerprint_facts"]

_DIGITS = 16
_HOST_FACTS = ("cpu", "arch", "max_mhz", "virtual")


def fingerprint_facts(
    device: str, details: Mapping[str, Any], *, emulated: bool, here: bool
) -> dict[str, Any]:
    """Return what makes a device: its name, what it tells, and the machine it is ``here`` on."""
    facts = {"device": device, "emulated": emulated, **details}
    if here:
        environment = collect()
        facts |= {key: environment[key] for key in _HOST_FACTS if key in environment}
        facts["cores"] = os.cpu_count()
        if "memory_bytes" in environment:
            facts["memory_gib"] = round(environment["memory_bytes"] / 2**30)
    return facts


def facts_of(device: Device, raw: RawTiming) -> dict[str, Any]:
    """Return the facts of a device that ``raw`` was timed on."""
    here = bool(getattr(device, "here", False))
    return fingerprint_facts(device.name, raw.details, emulated=raw.emulated, here=here)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that differ where the facts do."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
