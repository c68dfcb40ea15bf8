"""Products in executed instructions: what rules go by for engines that cannot be timed here.

A product executes ``rounds * round_instructions``, and an epilogue for each output. The formulas
of the engines and the epilogues agree with `benchmarks/arm.py`'s counts within some per cent.
"""

from __future__ import annotations

import math

from .engines.base import Engine
from .engines.counted import Counted

__all__ = ["dense_instructions", "sparse_instructions"]

# Of one output: scales, bias and store.
_EPILOGUE = {"f32": 1.1, "bf16": 1.5, "int8": 2.7}
# A walk along lists of places loads one, and finds the activations by it.
_PLACE = 1


def dense_instructions(engine: Engine, depth: int) -> float:
    """Of one output of one row. Raises TypeError where the engine is not `Counted`."""
    at_once = engine.padded_depth(1) // engine.group
    rounds = engine.padded_depth(depth) // engine.padded_depth(1)
    return rounds * _round(engine, at_once) + _EPILOGUE[engine.precision]


def sparse_instructions(engine: Engine, depth: int, group_in: int, density: float) -> float:
    """Likewise, where ``density`` of the blocks of ``group_in`` inputs survive."""
    run = group_in // engine.group
    together = math.gcd(run, engine.padded_depth(1) // engine.group)
    block = run // together * _round(engine, together) + _PLACE / _block(engine)
    return math.ceil(depth / group_in) * density * block + _EPILOGUE[engine.precision]


def _round(engine: Engine, groups: int) -> float:
    """An output's share of a round."""
    if not isinstance(engine, Counted):
        raise TypeError(f"instructions of {engine.name} are not told")
    # The rows of a block follow those of the product; the rule must not.
    whole = type(engine)(engine.blocks[engine.tiles], engine.tiles)
    return whole.round_instructions(groups) / _block(engine)


def _block(engine: Engine) -> int:
    return engine.blocks[engine.tiles] * engine.panel
