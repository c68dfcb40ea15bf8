"""The values that a weight may take once it is stored: codes times steps.

A *grid* belongs to one weight: its steps are made of it, and rounding to the grid keeps them, so
that whoever packs the rounded weight finds the same steps and rounds no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..derivations import int8_codes, weight_scales
from .int4 import int4_codes, int4_pinned, int4_scales, int4_steps

__all__ = ["Grid", "grid_for", "nearest"]


@dataclass(frozen=True)
class Grid:
    """``steps`` [outputs, depth] (0: the weight is zero), codes from ``lowest`` to ``highest``;
    ``pinned`` [outputs, depth]: weights that the steps are made of, rounded to nearest."""

    steps: torch.Tensor
    lowest: int
    highest: int
    pinned: torch.Tensor


def grid_for(weight: torch.Tensor, bits: int) -> Grid:
    """The grid of a weight [outputs, depth] in 8 or 4 bits."""
    if bits == 4:
        steps = int4_steps(int4_scales(weight), weight.shape[1])
        return Grid(steps, -8, 7, int4_pinned(weight))
    largest = weight.abs().argmax(dim=1, keepdim=True)
    pinned = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, largest, True)
    return Grid(weight_scales(weight)[:, None].expand_as(weight), -127, 127, pinned)


def nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """What is stored of a weight, or row by row of a table, that is rounded to nearest."""
    if bits == 4:
        return int4_codes(weight) * int4_steps(int4_scales(weight), weight.shape[1])
    return int8_codes(weight) * weight_scales(weight)[:, None]
