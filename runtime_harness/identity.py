"""Which device is behind a name now: the fingerprint that its measurements would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from .contest import Entrant
from .fingerprint import facts_of, fingerprint
from .workload import reference_bundle, workload_target

if TYPE_CHECKING:
    from .device import Device

__all__ = ["identify"]


def identify(
    device: Device, target: str, *, threads: int = 1, timeout: float | None = None
) -> str:
    """Return `Measurement.fingerprint` of whatever is measured on ``device`` for ``target``.

    Runs the reference workload, once: what a device is may show only when it runs something.
    Raises UnsupportedError where that does not run there, and what ``device.bench`` does.
    """
    own = workload_target(device, target)
    if own is None:
        raise UnsupportedError(f"The reference workload does not run on {device.name}.")
    workload = Entrant.of(reference_bundle(), device, target=own, seq_len=None).contestant
    raw = device.bench(
        workload.bundle,
        workload.module,
        workload.inputs,
        threads=threads,
        repetitions=1,
        warmup=0,
        timeout=timeout,
    )
    return fingerprint(facts_of(device, raw))
