"""The architectures of a space that are scaled as a whole: its extremes, and a ladder from one to
the other.

Where each layer chooses its heads and its feed-forward width for itself, nearly all draws are
uneven; a controller that begins with draws hardly meets an even one in some hundred trials.
"""

from __future__ import annotations

from ...targets import PRECISIONS
from .architecture import Architecture
from .space import ArchitectureSpace, Decision, Scalar

__all__ = ["extremes", "scalings"]

# On every target's CPU, of those that it can do.
_FASTEST_FIRST = ("int8", "bf16", "f16", "int8-weights", "int4-weights", "f32")


def extremes(space: ArchitectureSpace) -> tuple[Architecture, Architecture]:
    """(the largest, the smallest): of every decision the choice that keeps most, or least."""
    ordered = {decision.name: _by_size(decision) for decision in space.decisions()}
    return (
        space.build({name: choices[-1] for name, choices in ordered.items()}),
        space.build({name: choices[0] for name, choices in ordered.items()}),
    )


def scalings(space: ArchitectureSpace) -> list[dict[str, Scalar]]:
    """Choices that scale the largest architecture down evenly, none of them twice.

    First with ever fewer heads and feed-forward units in every layer, then with ever fewer
    layers, all of these in the fastest precision that is offered; last the largest one in the
    widest. They have the full hidden width and all blocks.
    """
    decisions = space.decisions()
    steps = max(len(space.heads), len(space.ffn))
    depths = sorted(space.layers, reverse=True)
    ladder = [(depths[0], step / max(1, steps - 1)) for step in range(steps)]
    ladder += [(depth, 0.0) for depth in depths[1:]]
    found = [
        {d.name: _scaled(d, depth, share, fast=True) for d in decisions} for depth, share in ladder
    ]
    found.append({d.name: _scaled(d, depths[0], 0.0, fast=False) for d in decisions})
    return [values for place, values in enumerate(found) if values not in found[:place]]


def _scaled(decision: Decision, depth: int, share: float, *, fast: bool) -> Scalar:
    """``share``: how far down from the largest, 0 to 1, heads and feed-forward units are.
    ``fast``: whether the table of words and the matrices have the fastest precision, or the
    widest."""
    what = decision.name.split(".")[-1]
    if what == "layers":
        return depth
    if what == "precision":
        order = _FASTEST_FIRST if fast else PRECISIONS
        return next(one for one in order if one in decision.choices)
    largest_first = _by_size(decision)[::-1]
    if what == "embedding_int8" and fast:
        return largest_first[-1]
    if what in ("heads", "ffn"):
        return largest_first[round(share * (len(largest_first) - 1))]
    return largest_first[0]


def _by_size(decision: Decision) -> list[Scalar]:
    """Its choices, the one that keeps least first."""

    def kept(choice: Scalar) -> float:
        if decision.name == "embedding_int8":
            return -float(bool(choice))
        if isinstance(choice, str):
            return -float(PRECISIONS.index(choice))  # listed from the widest on
        return float("inf") if choice is None else float(choice)

    return sorted(decision.choices, key=kept)
