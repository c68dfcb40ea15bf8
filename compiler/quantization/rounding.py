"""Weights rounded with what they are multiplied by in view.

Rounding to nearest makes each weight's error small. What counts is the error of the sums: one
weight of a row after the other is rounded, each together with the errors that those before it
left, as far as it goes along with them in the activations. (Babai's nearest plane; GPTQ, arXiv
2210.17323, gives the same.)
"""

from __future__ import annotations

import torch

from .grids import grid_for

__all__ = ["rounded_for"]

_BLOCK = 64
# Against fitting the few activations that were seen: a share of their mean square.
_DAMPING = 0.1


def rounded_for(weight: torch.Tensor, rows: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """Of ``weight`` [outputs, depth] what ``bits`` hold, for activations like ``rows``.

    Multiples of the same scales as rounding to nearest gives: the largest weight under each scale
    stays what it is, so that packing the result finds the same scales, and rounds no more. Zeros
    stay zeros: what was pruned takes no other's error, and blocks of zeros are left out.
    """
    # The last is rounded first, so that the most important ones leave their errors to others.
    order = rows.square().sum(dim=0).argsort()
    grid = grid_for(weight, bits)
    steps = grid.steps[:, order].T.contiguous()
    exact = weight[:, order].T.contiguous()
    zero = (exact == 0) | (steps == 0)
    steps.masked_fill_(steps == 0, 1.0)
    # What takes no other's error, and what becomes of it.
    fixed = (grid.pinned[:, order].T | zero).contiguous()
    alone = (exact / steps).round_().clamp_(grid.lowest, grid.highest).mul_(steps)
    alone.masked_fill_(zero, 0.0)
    result = torch.empty_like(exact)
    errors = torch.zeros_like(exact)
    share = _shares(rows[:, order])
    for end in range(len(exact), 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        wanted = exact[start:end] + share[end:, start:end].T @ errors[end:]
        for at in range(end - 1, start - 1, -1):
            value = wanted[at - start] + share[at + 1 : end, at] @ errors[at + 1 : end]
            value.div_(steps[at]).round_().clamp_(grid.lowest, grid.highest).mul_(steps[at])
            torch.where(fixed[at], alone[at], value, out=result[at])
            torch.sub(exact[at], result[at], out=errors[at])
    rounded = torch.empty_like(weight)
    rounded[:, order] = result.T
    return rounded


def _shares(rows: torch.Tensor) -> torch.Tensor:
    """How much of the error at i counts at j < i: L[i, j] / L[j, j] of the rows' square."""
    gram = rows.T @ rows
    size = gram.diagonal().mean().clamp(min=1e-12)
    gram.diagonal().add_(_DAMPING * size)
    lower = torch.linalg.cholesky(gram)
    shares: torch.Tensor = lower / lower.diagonal()
    return shares
