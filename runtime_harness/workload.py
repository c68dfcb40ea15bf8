"""The reference workload: small compiled modules that run in turns with what is measured.

Two linear layers of 768 by 768 with 64 rows, in f32: 151 million operations and 4.7 MB of
weights a call. One module for each kind of device; ``scripts/make_workload.py`` makes them.
A time divided by the workload's time in the same rounds says how a model fares on a device,
whatever the device's clock was just then.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDeviceError
from .selection import choose_target

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device

__all__ = ["WORKLOAD", "reference_bundle", "workload_target"]

WORKLOAD = Path(__file__).resolve().parent / "workload.canao"
"""The bundle that ships with the harness."""


@cache
def reference_bundle() -> Bundle:
    """Return the bundle of the reference workload."""
    from .bundle import Bundle

    return Bundle.open(WORKLOAD)


def workload_target(device: Device, target: str) -> str | None:
    """Return which module of the workload runs beside ``target``'s on ``device``.

    On a GPU the one of the same target, on a CPU the one for the most features that it has;
    None if the workload has no module for the device.
    """
    bundle = reference_bundle()
    try:
        return choose_target(bundle, device, target if target in bundle.targets else None)
    except MissingDeviceError:
        return None
