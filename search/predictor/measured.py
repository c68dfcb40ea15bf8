"""The program that was measured: what ran then, whatever the compiler would make of it today.

A measurement that names its dispatches is of those. A later compiler may fuse more or write faster
kernels; what the measurement tells of its own dispatches stays true.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from ...errors import InputError
from .workload import Workload, workload_of

if TYPE_CHECKING:
    from ..program.dispatch import Program
    from .records import Record

__all__ = ["measured_program", "measured_workload"]

_CACHED = 4096
# Padding and shared names of equal code differ by less, other models by more.
_ALIKE = 0.1


@lru_cache(maxsize=_CACHED)
def measured_program(record: Record) -> Program:
    """The dispatches that ran, as far as the record names them; else those that the compiler would
    make, as where the names are of another work than the architecture's. Raises
    `UnsupportedError` where those cannot be derived."""
    from ..program.derive import program_of

    setting = record.setting
    derived = program_of(
        record.architecture,
        setting.target,
        setting.threads,
        cpu_features=setting.cpu_features,
    )
    if not record.calls:
        return derived
    named = _named(record.calls, setting.target, setting.threads, derived.seq_len)
    if named is None:
        return derived
    work, expected = (sum(one.flops for one in each.dispatches) for each in (named, derived))
    return named if math.isclose(work, expected, rel_tol=_ALIKE) else derived


def measured_workload(record: Record) -> Workload:
    """The workload of `measured_program`."""
    if not record.calls:
        return workload_of(record.architecture, *record.setting.place)
    return Workload.of(measured_program(record), record.architecture)


@lru_cache(maxsize=_CACHED)
def _named(calls: tuple[str, ...], target: str, threads: int, seq_len: int) -> Program | None:
    from ..program.dispatch import Program
    from ..program.names import dispatch_of

    try:
        dispatches = tuple(map(dispatch_of, calls))
    except InputError:  # of another compiler
        return None
    return Program(target=target, threads=threads, seq_len=seq_len, dispatches=dispatches)
