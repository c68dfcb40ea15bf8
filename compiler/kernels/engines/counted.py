"""Engines for cores that nothing here can time: what they execute is told instead."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Counted"]


class Counted(ABC):
    """Rules compare such engines by executed instructions: counted under emulation, where every
    count is exact, they are the same on any machine."""

    @abstractmethod
    def round_instructions(self, groups: int) -> float:
        """Of one round of the inner loop: a whole block by ``groups`` depth groups that stand
        together, looking after the loop included."""
