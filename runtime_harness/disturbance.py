"""What else used the cores while something was timed, from the kernel's counters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["CpuTimes", "Disturbance", "read_cpu_times", "watched_cores"]

_STAT = Path("/proc/stat")
_CPUS = Path("/sys/devices/system/cpu")
# Below so many seconds the kernel's counters, in hundredths, say nothing.
_SHORTEST = 0.5
_FOREIGN = 0.05
_STOLEN = 0.02
_LOST = 0.05
_SWITCHES = 30.0


@dataclass(frozen=True, kw_only=True)
class CpuTimes:
    """Seconds that some cores spent since they started: working, and kept by the hypervisor."""

    busy: float
    stolen: float


def read_cpu_times(cores: Sequence[int]) -> CpuTimes | None:
    """Return the times of some cores together; None where the kernel does not tell.

    Fields of ``/proc/stat`` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
    """
    try:
        lines = _STAT.read_text(encoding="ascii", errors="replace").splitlines()
        ticks = os.sysconf("SC_CLK_TCK")
        wanted = {f"cpu{core}" for core in cores}
        rows = [line.split() for line in lines if line.split(" ", 1)[0] in wanted]
        counts = [[int(value) for value in row[1:9]] for row in rows]
        if not counts:
            return None
        busy = sum(row[0] + row[1] + row[2] + row[5] + row[6] for row in counts)
        return CpuTimes(busy=busy / ticks, stolen=sum(row[7] for row in counts) / ticks)
    except (OSError, ValueError, IndexError):
        return None


def watched_cores(cores: Iterable[int]) -> tuple[int, ...]:
    """Return the cores and those that share an execution unit with one of them."""
    found = set(cores)
    for core in tuple(found):
        try:
            text = (_CPUS / f"cpu{core}/topology/thread_siblings_list").read_text()
            for part in text.strip().split(","):
                low, _, high = part.partition("-")
                found.update(range(int(low), int(high or low) + 1))
        except (OSError, ValueError):
            continue
    return tuple(sorted(found))


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Sums over all turns of one contestant, or of several (``+`` adds).

    Seconds: ``wall`` passed, ``cpu`` used by the timed process, ``busy`` and ``stolen`` by the
    ``cores`` that were watched (0: not known). ``switches`` counts how often the process was
    put off in favour of another. ``alone`` says that one thread does all the work without
    waiting, so that its time off the processor was time lost.
    """

    wall: float = 0.0
    cpu: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    switches: int = 0
    cores: int = 0
    alone: bool = False

    def __add__(self, other: Disturbance) -> Disturbance:
        return Disturbance(
            wall=self.wall + other.wall,
            cpu=self.cpu + other.cpu,
            busy=self.busy + other.busy,
            stolen=self.stolen + other.stolen,
            switches=self.switches + other.switches,
            cores=max(self.cores, other.cores),
            alone=self.alone and other.alone,
        )

    @property
    def known(self) -> bool:
        """Whether the kernel told what else used the cores."""
        return self.foreign_share is not None

    @property
    def foreign_share(self) -> float | None:
        """The share of the watched cores' time that other processes used."""
        if not self.cores or self.wall < _SHORTEST:
            return None
        return max(0.0, self.busy - self.cpu) / (self.wall * self.cores)

    @property
    def stolen_share(self) -> float | None:
        """The share of the watched cores' time that the hypervisor gave to others."""
        if not self.cores or self.wall < _SHORTEST:
            return None
        return self.stolen / (self.wall * self.cores)

    @property
    def lost_share(self) -> float | None:
        """The share of the time in which a process that never waits did not run."""
        if not self.alone or self.wall <= 0:
            return None
        return max(0.0, 1 - self.cpu / self.wall)

    @property
    def switches_per_second(self) -> float:
        """How often a second the process was put off."""
        return self.switches / self.wall if self.wall > 0 else 0.0

    def faults(self) -> tuple[str, ...]:
        """Return what disturbed the measurement too much, in words; empty if nothing did."""
        found = []
        if (self.foreign_share or 0.0) > _FOREIGN:
            found.append(f"other processes used {self.foreign_share:.0%} of the cores' time")
        if (self.stolen_share or 0.0) > _STOLEN:
            found.append(f"the hypervisor gave {self.stolen_share:.0%} of the cores' time away")
        if (self.lost_share or 0.0) > _LOST:
            found.append(f"the process was off its core for {self.lost_share:.0%} of the time")
        if self.wall >= _SHORTEST and self.switches_per_second > _SWITCHES:
            found.append(f"the process was put off {self.switches_per_second:.0f} times a second")
        return (f"the cores were busy: {', '.join(found)}",) if found else ()

    def sums(self) -> dict[str, Any]:
        """Return the fields as JSON values, from which an equal one can be made."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_json(self) -> dict[str, Any]:
        """Return the sums and the shares as JSON values."""
        value = self.sums()
        for name in ("foreign_share", "stolen_share", "lost_share", "switches_per_second"):
            value[name] = getattr(self, name)
        return value
