"""When it pays to pick columns: the time of a product without its idle lines, over the dense one.

Picking one value of f32 takes about as long as ``_WORTH`` multiplications of the product, by how
fast the core is at those (measured with 128 rows on a core with all of the engines: 0.7 ns a
value, against 70, 350 and 1000 multiplications a nanosecond); and it is one more dispatch, which
takes about as long as picking ``_DISPATCH`` values.

Law: lengths of a bundle share their weights, so the choice is made for ``_ROWS`` rows, whatever
their number is.
"""

from __future__ import annotations

from .engines.base import Engine

__all__ = ["expanded_cost", "gathered_cost"]

_ROWS = 128
_WORTH = {"f32": 50, "bf16": 50, "f16": 50, "int8": 250}
_WORTH_IN_TILES = {"bf16": 350, "int8": 700}
_DISPATCH = 4000


def gathered_cost(dense: Engine | None, depth: int, outputs: int, part: float) -> float:
    """For ``part`` of the inputs; ``dense`` is None where no kernel does the product."""
    return part * (1 + _worth(dense) / outputs) + _dispatch(dense, depth, outputs)


def expanded_cost(dense: Engine | None, depth: int, outputs: int, part: float) -> float:
    """For ``part`` of the outputs, all of which are put in their places."""
    return part + _worth(dense) / depth + _dispatch(dense, depth, outputs)


def _dispatch(dense: Engine | None, depth: int, outputs: int) -> float:
    return _DISPATCH * _worth(dense) / (_ROWS * depth * outputs)


def _worth(dense: Engine | None) -> int:
    if dense is None:
        return _WORTH["f32"]
    known = _WORTH_IN_TILES if dense.name.startswith("amx") else _WORTH
    return known[dense.precision]
