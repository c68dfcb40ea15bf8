"""Measuring a bundle on a device: numbers checked first, then timed in rounds, then judged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .contest import Entrant, hold
from .selection import open_bundle

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device
    from .measurement import Measurement

__all__ = ["bench"]


def bench(
    bundle: Bundle | str | os.PathLike[str],
    device: str | Device = "local",
    *,
    target: str | None = None,
    seq_len: int | None = None,
    threads: int = 1,
    cores: Sequence[int] | None = None,
    rounds: int | None = None,
    repetitions: int | None = None,
    warmup: int | None = None,
    reference: Bundle | str | os.PathLike[str] | None = None,
    dispatches: bool = False,
    timeout: float | None = None,
) -> Measurement:
    """Time single calls of a model on a device, by the protocol in docs/measuring.md.

    ``target`` defaults to the one that fits the device best and ``seq_len`` to the longest.
    The outputs are compared with the stored reference first. Then the model takes turns, for
    ``rounds`` rounds (20; 6 on an emulator), with a reference workload: the one that ships with
    canao, or another bundle (``reference``). ``cores`` are those to stay on; a CPU's module
    stays on the fastest by default. ``repetitions`` is the least number of timed calls in all
    (default: as many as take 0.1 s a round, from 5 to 50), and ``warmup`` the least number
    before them; calls count as warm-up until they are steady. With ``dispatches``, single
    dispatches are timed afterwards, where the device can. ``timeout`` is in seconds, for each
    step of the work.

    Raises InputError for a wrong argument, MissingDeviceError if the device is not here or may
    not run the module, and DeviceError if it fails or runs out of time.
    """
    from .devices import get

    place = get(device) if isinstance(device, str) else device
    entrant = Entrant.of(open_bundle(bundle), place, target=target, seq_len=seq_len)
    (found,), _ = hold(
        [entrant],
        place,
        threads=threads,
        cores=cores,
        rounds=rounds,
        repetitions=repetitions,
        warmup=warmup,
        reference=reference,
        dispatches=dispatches,
        timeout=timeout,
    )
    return found
