"""The measuring protocol: its version and its numbers. docs/measuring.md describes it in words.

Measurements of different versions must not be compared, so whatever changes the times (not
their statistics) makes a new version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .device import check_count

__all__ = ["COMPARED", "EMULATED", "PROTOCOL", "REAL", "Plan"]

PROTOCOL = 1
"""The version of the protocol that this canao measures by."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long is measured: ``rounds`` in each of which every contestant has one turn.

    A turn has as many calls as take ``turn_ms`` (of the reference: ``reference_ms``), within
    ``min_calls`` and ``max_calls``, or exactly ``calls``; before them, up to two calls that are
    not timed. Processes are started afresh ``starts`` times, so that no single layout of memory
    decides. At least ``warmup`` calls come first, until they are steady. Where too little is known
    after all rounds, more starts follow, up to ``most_rounds``.
    """

    rounds: int
    starts: int
    warmup: int
    turn_ms: float
    reference_ms: float
    min_calls: int
    max_calls: int
    calls: int | None = None
    most_rounds: int = 0

    def calls_for(self, typical_ms: float, *, reference: bool = False) -> int:
        """Return the calls of a turn for something that takes ``typical_ms``."""
        if self.calls is not None and not reference:
            return self.calls
        aim = self.reference_ms if reference else self.turn_ms
        return max(self.min_calls, min(self.max_calls, round(aim / max(typical_ms, 1e-6))))

    def rounds_of_starts(self) -> tuple[int, ...]:
        """Return how many rounds each start has; the earlier ones have the odd ones."""
        starts = min(self.starts, self.rounds)
        each, odd = divmod(self.rounds, starts)
        return tuple(each + (index < odd) for index in range(starts))

    def changed(self, *, rounds: int | None, repetitions: int | None, warmup: int | None) -> Plan:
        """Return the plan with the caller's wishes; raises InputError for impossible ones.

        ``repetitions`` is the least number of timed calls in all.
        """
        plan = self
        if rounds is not None:
            check_count("rounds", rounds, 1)
            plan = replace(plan, rounds=rounds, most_rounds=0)
        if repetitions is not None:
            check_count("repetitions", repetitions, 1)
            plan = replace(plan, rounds=min(plan.rounds, repetitions))
            plan = replace(plan, calls=-(-repetitions // plan.rounds))
        if warmup is not None:
            check_count("warmup", warmup, 0)
            plan = replace(plan, warmup=warmup)
        return plan


REAL = Plan(rounds=20, starts=4, warmup=5, turn_ms=100, reference_ms=50, min_calls=5, max_calls=50)
"""For real hardware."""

COMPARED = replace(REAL, rounds=40, most_rounds=160)
"""For two modules on real hardware: until their ratio is known well."""

EMULATED = Plan(
    rounds=6, starts=1, warmup=1, turn_ms=100, reference_ms=50, min_calls=1, max_calls=5
)
"""For an emulator or a software GPU, where a call takes seconds and its time means little."""
