"""Measuring a bundle on a device: numbers checked first, then timed, then judged."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING

from .device import check_count, check_timeout
from .environment import collect
from .measurement import Measurement
from .reference import example_inputs, load_reference
from .selection import choose_target, open_bundle
from .stability import judge, percentile
from .verify import check_numerics

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device

__all__ = ["bench"]

# An emulator takes seconds where silicon takes milliseconds, and its times mean little.
_REPETITIONS, _WARMUP = 50, 5
_EMULATED_REPETITIONS, _EMULATED_WARMUP = 5, 1


def bench(
    bundle: Bundle | str | os.PathLike[str],
    device: str | Device = "local",
    *,
    target: str | None = None,
    seq_len: int | None = None,
    threads: int = 1,
    repetitions: int | None = None,
    warmup: int | None = None,
    timeout: float | None = None,
) -> Measurement:
    """Time single calls of a model on a device.

    ``target`` defaults to the one that fits the device best and ``seq_len`` to the longest.
    The outputs are compared with the stored reference first. Then ``warmup`` untimed calls and
    ``repetitions`` timed ones run in one process of their own (defaults: 5 and 50; 1 and 5 on
    an emulator); on a GPU, calls count as warm-up until they are steady. ``timeout`` is in
    seconds, for that process and for each call of the check.

    Raises InputError for a wrong argument, MissingDeviceError if the device is not here or may
    not run the module, and DeviceError if it fails or runs out of time.
    """
    from .devices import get

    check_timeout(timeout)
    found = open_bundle(bundle)
    place = get(device) if isinstance(device, str) else device
    chosen = choose_target(found, place, target)
    module = found.module(chosen, seq_len)
    emulated = place.info().emulated
    if repetitions is None:
        repetitions = _EMULATED_REPETITIONS if emulated else _REPETITIONS
    if warmup is None:
        warmup = _EMULATED_WARMUP if emulated else _WARMUP
    check_count("repetitions", repetitions, 1)
    check_count("warmup", warmup, 0)
    samples = load_reference(found, module.seq_len)
    checked = (
        check_numerics(
            found, place, chosen, {module.seq_len: samples}, threads=threads, timeout=timeout
        )
        if samples
        else None
    )
    environment = collect()
    raw = place.bench(
        found,
        module,
        example_inputs(found, module),
        threads=threads,
        repetitions=repetitions,
        warmup=warmup,
        timeout=timeout,
    )
    verdict = judge(raw.samples_ms)
    return Measurement(
        device=place.name,
        target=chosen,
        seq_len=module.seq_len,
        batch=module.batch,
        threads=threads,
        precision=found.manifest.precision,
        model=str(found.manifest.model.get("name", "")),
        bundle=found.digest,
        median_ms=statistics.median(raw.samples_ms),
        p90_ms=percentile(raw.samples_ms, 0.9),
        p99_ms=percentile(raw.samples_ms, 0.99),
        samples_ms=raw.samples_ms,
        warmup_ms=raw.warmup_ms,
        stable=verdict.stable,
        reason=verdict.reason,
        emulated=raw.emulated,
        peak_bytes=raw.peak_bytes,
        numerics_ok=None if checked is None else checked.ok,
        method=raw.method,
        device_details=raw.details,
        environment=environment,
    )
