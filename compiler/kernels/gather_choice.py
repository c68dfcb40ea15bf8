"""When it pays to pick columns: the time of a product without its idle lines, over the dense one.

Picking a value of f32 takes as long as some multiplications of the product, and it is one more
dispatch, which takes as long as some more. How many follows from what the product runs on:

- engines of x86 were measured, with 128 rows on a core that has all of them: 0.7 ns a value,
  against 70, 350 and 1000 multiplications a nanosecond; a dispatch takes as long as 4000 values;
- those of ARM were counted: executed instructions, under emulation (`instruction_counts`);
- for a GPU it is what a value moves, in bytes: what it is found by, itself, once more on its way
  to the product; a GPU multiplies about ``_MULTIPLIES_A_BYTE`` times while a byte comes.

Law: lengths of a bundle share their weights, so the choice is made for ``_ROWS`` rows, whatever
their number is.
"""

from __future__ import annotations

from dataclasses import dataclass

from .engines.base import Engine
from .engines.counted import Counted
from .instruction_counts import dense_instructions

__all__ = ["Worth", "expanded_cost", "gathered_cost", "worth_of"]

_ROWS = 128

_MEASURED = {"f32": 50, "bf16": 50, "int8": 250}
_MEASURED_IN_TILES = {"bf16": 350, "int8": 700}
_DISPATCH_VALUES = 4000

_PICK, _PLACE, _DISPATCH = 4.6, 5.8, 28_600
"""Executed instructions: of picking a value, of putting one in its place, of a dispatch."""

_VALUE_BYTES, _DISPATCH_BYTES = 16, 1 << 16
_MULTIPLIES_A_BYTE = 16


@dataclass(frozen=True)
class Worth:
    """What takes how many multiplications of a product."""

    pick: float
    place: float
    dispatch: float


def gathered_cost(dense: Engine | None, depth: int, outputs: int, part: float) -> float:
    """For ``part`` of the inputs; ``dense`` is None on a GPU."""
    worth = worth_of(dense, depth)
    whole = _ROWS * depth * outputs
    return part * (1 + worth.pick / outputs) + worth.dispatch / whole


def expanded_cost(dense: Engine | None, depth: int, outputs: int, part: float) -> float:
    """For ``part`` of the outputs, all of which are put in their places."""
    worth = worth_of(dense, depth)
    return part + worth.place / depth + worth.dispatch / (_ROWS * depth * outputs)


def worth_of(dense: Engine | None, depth: int) -> Worth:
    """For a product of so many inputs by an engine; None on a GPU."""
    if dense is None:
        value = _VALUE_BYTES * _MULTIPLIES_A_BYTE
        return Worth(value, value, _DISPATCH_BYTES * _MULTIPLIES_A_BYTE)
    if isinstance(dense, Counted):
        each = dense_instructions(dense, depth) / depth
        return Worth(_PICK / each, _PLACE / each, _DISPATCH / each)
    known = _MEASURED_IN_TILES if dense.name.startswith("amx") else _MEASURED
    measured = known[dense.precision]
    return Worth(measured, measured, measured * _DISPATCH_VALUES)
