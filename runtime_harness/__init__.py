"""Runs bundles: devices, sessions, and measuring. Needs no torch and no compiler.

What is named here is loaded when it is first used. ``canao.runtime_harness.bench.bench``,
``.verify.verify`` and ``.profile.profile`` are in the modules of their names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import Bundle, Manifest, ModuleEntry, TensorSpec, write_bundle
    from .device import Device, DeviceInfo, DispatchTime, RawTiming
    from .measurement import Measurement
    from .numerics import Comparison, compare
    from .session import Session, load

__all__ = [
    "Bundle",
    "Comparison",
    "Device",
    "DeviceInfo",
    "DispatchTime",
    "Manifest",
    "Measurement",
    "ModuleEntry",
    "RawTiming",
    "Session",
    "TensorSpec",
    "compare",
    "load",
    "write_bundle",
]

_HOMES = {
    "bundle": ("Bundle", "Manifest", "ModuleEntry", "TensorSpec", "write_bundle"),
    "device": ("Device", "DeviceInfo", "DispatchTime", "RawTiming"),
    "measurement": ("Measurement",),
    "numerics": ("Comparison", "compare"),
    "session": ("Session", "load"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
