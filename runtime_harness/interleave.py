"""Rounds: contestants take turns, so that whatever drifts drifts under all of them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from .affinity import check_cores, default_cores
from .by_device import DeviceStopwatch
from .device import check_threads
from .disturbance import Disturbance
from .protocol import Plan
from .readings import Reading, cool_down, take_reading
from .resident import ResidentStopwatch
from .turns import Contestant, Turn, Warmup

if TYPE_CHECKING:
    from .device import Device

__all__ = ["Series", "Timed", "measured_cores", "take_turns"]


Rounds = Sequence[Sequence[float]]
"""A contestant's samples in milliseconds, by round."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One contestant's samples in milliseconds, by round, and the calls that warmed it up.

    ``steady`` says whether it became steady at every start.
    """

    rounds: tuple[tuple[float, ...], ...]
    warmup_ms: tuple[float, ...]
    steady: bool
    disturbance: Disturbance

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All timed calls in order."""
        return tuple(sample for one in self.rounds for sample in one)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the rounds gave: a series for each contestant, in their order, and the readings."""

    series: tuple[Series, ...]
    readings: tuple[Reading, ...]
    method: str


def measured_cores(
    device: Device, kind: str, cores: Sequence[int] | None, threads: int
) -> tuple[int, ...] | None:
    """Return the cores to stay on (None: any); raises InputError for impossible ones.

    By default a CPU's module stays on ``default_cores``, and a GPU's on none in particular.
    """
    here = bool(getattr(device, "here", False))
    if cores is None:
        return default_cores(threads) if here and kind == "cpu" else None
    if not here:
        raise InputError(f"{device.name} is not on this machine, so its cores cannot be chosen")
    check_threads(threads, device=device.name)
    return check_cores(cores, threads)


def take_turns(
    device: Device,
    contestants: Sequence[Contestant],
    plan: Plan,
    *,
    threads: int,
    cores: tuple[int, ...] | None,
    references: int = 0,
    timeout: float | None = None,
    enough: Callable[[Sequence[Rounds]], bool] = lambda _: True,
) -> Timed:
    """Measure contestants in rounds; the last ``references`` of them are reference workloads.

    ``enough``: whether what their rounds tell so far will do, so that the plan's ``most_rounds``
    are not needed.

    Every other round goes through them backwards, so that a steady drift cancels out. Before
    each round the device may cool down. Raises DeviceError.
    """
    read = _reader(device, cores)
    turns: list[list[Turn]] = [[] for _ in contestants]
    warmups: list[list[Warmup]] = [[] for _ in contestants]
    numbers = range(len(contestants))
    readings = [read("before")] if read else []
    with _stopwatch(device, contestants, plan, threads, cores, timeout) as stopwatch:
        count, starts = 0, list(plan.rounds_of_starts())
        while starts:
            rounds = starts.pop(0)
            stopwatch.start()
            for number in numbers:
                warmups[number].append(stopwatch.warm(number, plan.warmup))
            typical = [each[0].typical_ms for each in warmups]
            for _ in range(rounds):
                if read:
                    readings.append(cool_down(f"round {count + 1}", read))
                for number in numbers if count % 2 == 0 else reversed(numbers):
                    is_reference = number >= len(contestants) - references
                    calls = plan.calls_for(typical[number], reference=is_reference)
                    turns[number].append(stopwatch.turn(number, calls))
                count += 1
            if not starts and count + rounds <= plan.most_rounds and not enough(_samples(turns)):
                starts.append(rounds)
    if read:
        readings.append(read("after"))
    return Timed(
        series=tuple(_series(*both) for both in zip(turns, warmups, strict=True)),
        readings=tuple(readings),
        method=stopwatch.method,
    )


def _samples(turns: Sequence[Sequence[Turn]]) -> list[Rounds]:
    return [[turn.samples_ms for turn in each] for each in turns]


def _reader(device: Device, cores: Sequence[int] | None) -> Callable[[str], Reading] | None:
    """How clocks and temperatures are read: by this machine's kernel if the device is here, else
    as the device tells them, if it does."""
    if getattr(device, "here", False):
        return functools.partial(take_reading, cores=cores or ())
    found: Callable[[str], Reading] | None = getattr(device, "reading", None)
    return found


def _series(turns: Sequence[Turn], warmups: Sequence[Warmup]) -> Series:
    return Series(
        rounds=tuple(turn.samples_ms for turn in turns),
        warmup_ms=tuple(sample for warmup in warmups for sample in warmup.samples_ms),
        steady=all(warmup.steady for warmup in warmups),
        disturbance=functools.reduce(operator.add, (turn.disturbance for turn in turns)),
    )


def _stopwatch(
    device: Device,
    contestants: Sequence[Contestant],
    plan: Plan,
    threads: int,
    cores: tuple[int, ...] | None,
    timeout: float | None,
) -> ResidentStopwatch | DeviceStopwatch:
    if getattr(device, "resident", False):
        return ResidentStopwatch(
            device.name, contestants, threads=threads, cores=cores, timeout=timeout
        )
    return DeviceStopwatch(
        device,
        contestants,
        threads=threads,
        cores=cores,
        here=bool(getattr(device, "here", False)),
        warmup=plan.warmup,
        timeout=timeout,
    )
