"""How fast a device runs the reference workload now, beside how fast it usually does.

A machine may be some per cent slower for minutes or days: its host is busy, its memory lies
elsewhere, it is warm. Within one measurement nothing shows that. So the reference's median of
every undisturbed measurement is kept, in the user's cache, and a measurement that was taken at
another pace than usual says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..paths import cache_dir
from .protocol import PROTOCOL
from .stability import judge

if TYPE_CHECKING:
    from .interleave import Series
    from .turns import Contestant

__all__ = ["Pace", "observe", "unusual_pace"]

_KEPT = 51
_FEWEST = 5
_AWAY = 0.01


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The reference's median now and the usual one, in milliseconds; the latter is None where
    fewer than five measurements are known."""

    now_ms: float
    usual_ms: float | None

    @property
    def fault(self) -> str | None:
        """What is wrong with it: more than 1 % from the usual."""
        if self.usual_ms is None or abs(self.now_ms / self.usual_ms - 1) <= _AWAY:
            return None
        change = self.now_ms / self.usual_ms - 1
        return (
            f"the machine is {abs(change):.1%} {'slower' if change > 0 else 'faster'} than it "
            f"usually is (the reference takes {self.now_ms:.3g} ms, usually {self.usual_ms:.3g})"
        )


def unusual_pace(
    fingerprint: str,
    reference: Contestant,
    series: Series,
    threads: int,
    cores: Sequence[int] | None,
) -> tuple[str, ...]:
    """What is wrong with a real device's pace, by the ``series`` of its reference workload."""
    samples = series.samples_ms
    calm = series.steady and judge(samples, disturbance=series.disturbance).stable
    # Cores differ in speed, so a pace is one of its cores.
    kept_on = "any" if cores is None else "_".join(map(str, cores))
    key = (
        f"{fingerprint}-{reference.bundle.digest[:16]}-{reference.module.target}-{threads}-"
        f"{kept_on}-{PROTOCOL}"
    )
    fault = observe(key, statistics.median(samples), keep=calm).fault
    return (fault,) if fault else ()


def observe(key: str, now_ms: float, *, keep: bool) -> Pace:
    """Compare with what is known under ``key`` (letters, digits, ``-``, ``_``), and ``keep`` it.

    The usual pace is the median of the last 51 kept. A cache that cannot be read or written is
    an empty one.
    """
    known: list[float] = []
    with contextlib.suppress(InputError, OSError):
        file = cache_dir("pace") / f"{key}.jsonl"
        known = _read(file)
        if keep:
            _append(file, now_ms)
    usual = statistics.median(known) if len(known) >= _FEWEST else None
    return Pace(now_ms=now_ms, usual_ms=usual)


def _read(file: Path) -> list[float]:
    """The last paces, in order; lines that are none are left out."""
    found: list[float] = []
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return found
    for line in text.splitlines()[-_KEPT:]:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, float) and math.isfinite(value) and value > 0:
                found.append(value)
    return found


def _append(file: Path, value: float) -> None:
    # One short write at the end of the file: several processes do not tear each other's lines.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{float(value)!r}\n".encode())
    finally:
        os.close(descriptor)
