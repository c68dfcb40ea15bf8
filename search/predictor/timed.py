"""The times of single dispatches, summed up for a fit of what dispatches cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .measured import measured_program
from .records import Record
from .workload import charges

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TimedDispatches", "timed_dispatches"]

_LEAST = 0.004  # of the reference: shorter ones are not told apart from the clock


@dataclass(frozen=True, eq=False, kw_only=True)
class TimedDispatches:
    """``sums``: by group, the normal equations (square [terms, terms], product [terms]) of
    terms times costs = time, each divided by the time: errors count relative to it."""

    sums: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


def timed_dispatches(record: Record) -> TimedDispatches | None:
    """None where dispatches were not timed, or others ran than those of the program."""
    if not record.dispatches:
        return None
    each = charges(measured_program(record), record.architecture)
    if len(each) != len(record.dispatches):
        return None
    reference = record.median_ms / record.relative
    sums: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for (group, terms), (_, ms) in zip(each, record.dispatches, strict=True):
        time = ms / reference
        row = terms / max(time, _LEAST)
        square, product = sums.get(group, (0.0, 0.0))
        wanted = time / max(time, _LEAST)
        sums[group] = (square + np.outer(row, row), product + row * wanted)
    return TimedDispatches(sums=sums)
