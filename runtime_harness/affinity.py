"""The cores that something is measured on: which by default, and staying there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError

__all__ = ["available_cores", "check_cores", "default_cores", "pinned"]

_CPUS = Path("/sys/devices/system/cpu")


def available_cores() -> tuple[int, ...]:
    """Return the cores that this process may use; empty where the system cannot pin."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def default_cores(threads: int) -> tuple[int, ...] | None:
    """Return the ``threads`` cores to measure on if nobody chose: the fastest, and the last.

    On a phone the last are the big ones, and the first take most interrupts. None if there are
    fewer, or the system cannot pin.
    """
    cores = available_cores()
    if len(cores) < threads:
        return None
    return tuple(sorted(sorted(cores, key=lambda core: (_speed(core), core))[-threads:]))


def check_cores(cores: Sequence[int], threads: int) -> tuple[int, ...]:
    """Return the cores in order; raises InputError unless all are here and enough for threads."""
    here = available_cores()
    if not here:
        raise InputError("this system cannot pin processes to cores: leave the cores out")
    chosen = tuple(sorted(set(cores)))
    for core in chosen:
        if isinstance(core, bool) or core not in here:
            listed = ", ".join(map(str, here))
            raise InputError(f"there is no core {core!r} for this process: use some of {listed}")
    if len(chosen) < threads:
        raise InputError(
            f"{threads} threads need as many cores, not {len(chosen)}: name more, or fewer threads"
        )
    return chosen


@contextlib.contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on some cores (None: any)."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _speed(core: int) -> int:
    for name in ("cpufreq/cpuinfo_max_freq", "cpu_capacity"):
        with contextlib.suppress(OSError, ValueError):
            return int((_CPUS / f"cpu{core}" / name).read_text())
    return 0
