"""Whether what was measured was measured on the devices that a study has.

A name such as ``local`` is of one device on each machine, so it is the fingerprint that counts:
predictions made on one device say nothing of another, and a guarantee even less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...errors import CanaoError
from ...runtime_harness.devices import get
from ...runtime_harness.identity import identify
from .measured import Measured
from .pool import DevicePool

__all__ = ["identities", "strangers"]

_TIMEOUT = 300.0


def identities(
    devices: Sequence[str],
    target: str,
    *,
    threads: int,
    available: Callable[[str], bool] | None = None,
    ask: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """The fingerprint of each of ``devices`` that is here, by name. ``available`` and ``ask`` are
    those of the harness if left.

    Raises `DeviceError` where one is lost meanwhile, `UnsupportedError` where the reference
    workload does not run on one.
    """
    there = available or (lambda name: get(name).info().available)

    def fingerprint(name: str) -> str:
        return identify(get(name), target, threads=threads, timeout=_TIMEOUT)

    found = {}
    for name in devices:
        if there(name):
            # Alone: it would disturb what another study measures there.
            (result,) = DevicePool[str]([name], available=there).run([ask or fingerprint])
            if isinstance(result, CanaoError):
                raise result
            found[name] = result
    return found


def strangers(measured: Iterable[Measured], devices: Mapping[str, str]) -> list[str]:
    """Why some of ``measured`` do not count: each was measured on another device than that of
    its name in ``devices`` (fingerprints by name). Empty where all count."""
    return [
        f"was measured on another {one.device} ({one.fingerprint}) than the study's "
        f"({devices.get(one.device, 'which has none of that name')})"
        for one in measured
        if devices.get(one.device) != one.fingerprint
    ]
