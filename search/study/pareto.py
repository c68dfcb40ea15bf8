"""Which of several models no other beats in both accuracy and latency, and how much they are
worth together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["front_of", "hypervolume"]

T = TypeVar("T")


def front_of(items: Sequence[T], point: Callable[[T], tuple[float, float]]) -> list[T]:
    """Those that no other beats, by latency, the fastest first.

    ``point`` gives (latency, accuracy): less and more are better. Of equal ones the first stays.
    """
    ordered = sorted(items, key=lambda item: (point(item)[0], -point(item)[1]))
    front: list[T] = []
    for item in ordered:
        if not front or point(item)[1] > point(front[-1])[1]:
            front.append(item)
    return front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area that points (latency, accuracy) dominate, up to a reference that is worse than
    what counts in both (Zitzler & Thiele 1999)."""
    inside = [p for p in points if p[0] < reference[0] and p[1] > reference[1]]
    area, reached = 0.0, reference[1]
    for latency, accuracy in front_of(inside, lambda p: p):
        area += (reference[0] - latency) * (accuracy - reached)
        reached = accuracy
    return area
