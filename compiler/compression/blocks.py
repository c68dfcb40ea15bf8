"""Weights seen as blocks: neighbouring inputs by neighbouring outputs.

A weight is [outputs, inputs] here. Blocks at its edges may be smaller than the others.
"""

from __future__ import annotations

import math

import torch

__all__ = ["block_count", "block_sums", "expanded", "packed", "unpacked"]

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


def packed(values: torch.Tensor, alive: torch.Tensor, block: Block) -> torch.Tensor:
    """[kept, outputs of a block, inputs of a block]: the blocks of ``values`` [outputs, inputs]
    that ``alive`` [panels, groups] keeps, panel by panel; filled up with zeros at the edges."""
    panels, groups = alive.shape
    outputs, inputs = values.shape
    padding = (0, groups * block[0] - inputs, 0, panels * block[1] - outputs)
    full = torch.nn.functional.pad(values, padding)
    cells = full.reshape(panels, block[1], groups, block[0]).transpose(1, 2)
    return cells[alive].contiguous()


def unpacked(
    blocks: torch.Tensor, alive: torch.Tensor, block: Block, shape: tuple[int, int]
) -> torch.Tensor:
    """The inverse of `packed`, with zeros where nothing was kept.

    Raises ValueError where ``blocks`` are not those of ``alive``.
    """
    panels, groups = alive.shape
    if (panels, groups) != block_count(shape, block):
        raise ValueError(f"a mask is {panels} x {groups}, not that of a weight of {shape}")
    if tuple(blocks.shape) != (int(alive.sum()), block[1], block[0]):
        raise ValueError(f"blocks are {tuple(blocks.shape)}, but {int(alive.sum())} are kept")
    cells = blocks.new_zeros(panels, groups, block[1], block[0])
    cells[alive] = blocks
    full = cells.transpose(1, 2).reshape(panels * block[1], groups * block[0])
    return full[: shape[0], : shape[1]].contiguous()
