"""Timing by a device's own ``bench``: every turn is a process, warmed up afresh."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .affinity import pinned
from .disturbance import Disturbance, read_cpu_times, watched_cores
from .turns import Contestant, Turn, Warmup, is_steady

if TYPE_CHECKING:
    from .device import Device, RawTiming

__all__ = ["DeviceStopwatch"]

_WINDOW = 4


class DeviceStopwatch:
    """Times calls by ``device.bench``, on ``cores`` of this machine if it runs here.

    Its calls are warmed up in every turn, so ``warm`` is only a first, short turn; whether that
    became steady can be told of eight calls or more.
    """

    def __init__(
        self,
        device: Device,
        contestants: Sequence[Contestant],
        *,
        threads: int,
        cores: Sequence[int] | None,
        here: bool,
        warmup: int,
        timeout: float | None,
    ) -> None:
        self._device, self._contestants, self._threads = device, contestants, threads
        self._cores, self._here, self._warmup = cores, here, warmup
        self._timeout = timeout
        self.method = "the device's bench, a process for every turn"

    def __enter__(self) -> DeviceStopwatch:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def start(self) -> None:
        """Nothing stays, so nothing is to be started."""

    def warm(self, number: int, least: int) -> Warmup:
        """Return the time of a call after ``least`` others."""
        raw = self._bench(number, 1, least)
        samples = (*raw.warmup_ms, *raw.samples_ms)
        steady = len(samples) < 2 * _WINDOW or is_steady(samples, _WINDOW)
        return Warmup(
            samples_ms=samples, calls=len(samples), typical_ms=samples[-1], steady=steady
        )

    def turn(self, number: int, calls: int) -> Turn:
        """Time so many calls in a process of their own."""
        watched = watched_cores(self._cores or ()) if self._here else ()
        before, used = read_cpu_times(watched), resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        raw = self._bench(number, calls, self._warmup)
        wall = time.perf_counter() - started
        using, after = resource.getrusage(resource.RUSAGE_CHILDREN), read_cpu_times(watched)
        found = Disturbance(
            wall=wall,
            cpu=using.ru_utime + using.ru_stime - used.ru_utime - used.ru_stime,
            busy=after.busy - before.busy if before and after else 0.0,
            stolen=after.stolen - before.stolen if before and after else 0.0,
            switches=using.ru_nivcsw - used.ru_nivcsw if self._here else 0,
            cores=len(watched) if before and after else 0,
        )
        return Turn(samples_ms=raw.samples_ms[-calls:], disturbance=found)

    def close(self) -> None:
        """Nothing stays."""

    def _bench(self, number: int, calls: int, warmup: int) -> RawTiming:
        contestant = self._contestants[number]
        with pinned(self._cores):
            return self._device.bench(
                contestant.bundle,
                contestant.module,
                contestant.inputs,
                threads=self._threads,
                repetitions=calls,
                warmup=warmup,
                timeout=self._timeout,
            )
