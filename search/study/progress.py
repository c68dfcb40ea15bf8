"""What a running study tells people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from .specification import Specification
from .trial import Trial

__all__ = ["Progress"]


class Progress:
    """Called with the finished trials whenever there are more; tells ``tell`` a line."""

    def __init__(
        self, trials: int, specification: Specification, tell: Callable[[str], None]
    ) -> None:
        self._trials = trials
        self._specification = specification
        self._tell = tell
        self._began = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: Mapping[int, Trial]) -> None:
        """Tell how far it is, and what the best is so far."""
        if self._first is None:
            self._first = len(done)
        parts = [f"trial {len(done)} of {self._trials}"]
        fitting = [trial for trial in done.values() if trial.outcome.feasible]
        if fitting:
            best = max(fitting, key=lambda trial: trial.outcome.accuracy or 0.0)
            parts.append(
                f"best {best.outcome.accuracy or 0.0:.2f} at {best.outcome.latency or 0.0:.3g} ms"
            )
        dropped = sum(trial.outcome.accuracy is None for trial in done.values())
        if dropped:
            parts.append(f"{dropped} too slow or too large")
        fresh = len(done) - self._first
        if fresh and len(done) < self._trials:
            each = (time.monotonic() - self._began) / fresh
            parts.append(f"{each * (self._trials - len(done)) / 60:.0f} min to go")
        self._tell(", ".join(parts))
