"""Weights seen as blocks: neighbouring inputs by neighbouring outputs.

A weight is [outputs, inputs] here. Blocks at its edges may be smaller than the others.
"""

from __future__ import annotations

import math

import torch

__all__ = ["block_count", "block_sums", "expanded"]

Block = tuple[int, int]
"""(inputs, outputs)."""


def block_count(shape: tuple[int, int], block: Block) -> tuple[int, int]:
    """(panels of outputs, groups of inputs) of a weight [outputs, inputs]."""
    outputs, inputs = shape
    return math.ceil(outputs / block[1]), math.ceil(inputs / block[0])


def block_sums(values: torch.Tensor, block: Block) -> torch.Tensor:
    """[panels, groups]: the sum of ``values`` [outputs, inputs] over each block."""
    outputs, inputs = values.shape
    panels, groups = block_count((outputs, inputs), block)
    padding = (0, groups * block[0] - inputs, 0, panels * block[1] - outputs)
    full = torch.nn.functional.pad(values, padding)
    return full.reshape(panels, block[1], groups, block[0]).sum(dim=(1, 3))


def expanded(blocks: torch.Tensor, block: Block, shape: tuple[int, int]) -> torch.Tensor:
    """[outputs, inputs]: each block's value at each of its weights."""
    rows = blocks.repeat_interleave(block[1], 0).repeat_interleave(block[0], 1)
    return rows[: shape[0], : shape[1]]
