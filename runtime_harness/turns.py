"""What takes turns, and what a turn gives: the values between a stopwatch and its user."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .disturbance import Disturbance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry

__all__ = ["Contestant", "Stopwatch", "Turn", "Warmup", "is_steady", "refreshing_calls"]

_STEADY = 0.05
_SLOW_MS = 50.0


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A module of a bundle, with the inputs it is called with."""

    bundle: Bundle
    module: ModuleEntry
    inputs: dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """The ``calls`` before the first turn, the first of them in milliseconds.

    ``typical_ms`` is the median of the later half of them; ``steady`` says whether they became
    steady.
    """

    samples_ms: tuple[float, ...]
    calls: int
    typical_ms: float
    steady: bool


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The timed calls of one turn, in milliseconds, and what disturbed them."""

    samples_ms: tuple[float, ...]
    disturbance: Disturbance = field(default_factory=Disturbance)


class Stopwatch(Protocol):
    """Calls contestants, by their number, and times the calls; a context manager."""

    method: str

    def start(self) -> None:
        """Start afresh; whatever was started before ends."""

    def warm(self, number: int, least: int) -> Warmup:
        """Call until the calls are steady, and at least so often."""

    def turn(self, number: int, calls: int) -> Turn:
        """Time so many calls, after a few others that find the caches in use by others."""

    def close(self) -> None:
        """End every process."""


def is_steady(samples: Sequence[float], window: int) -> bool:
    """Whether the last ``window`` calls are as fast as those before: within 5 %, by medians."""
    if len(samples) < 2 * window:
        return False
    before, last = samples[-2 * window : -window], samples[-window:]
    return statistics.median(last) >= (1 - _STEADY) * statistics.median(before)


def refreshing_calls(typical_ms: float) -> int:
    """Return how many calls at the start of a turn are not timed."""
    return 1 if typical_ms > _SLOW_MS else 2
