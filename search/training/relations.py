"""The loss on self-relations, with its gradient found on the way.

    relation_loss(X, Y) = mean over real tokens and heads of
        KL(softmax(Y Y^T / sqrt(d)) || softmax(X X^T / sqrt(d)))        (MiniLMv2, 2012.15828)

Written with autograd the scores, [rows, heads, tokens, tokens] in float32, go through memory some
twenty times, most of a step with long texts. Here some rows at a time are led from X to the
gradient, so that their scores stay in a core's cache:

    S = X X^T / sqrt(d),  T = Y Y^T / sqrt(d)
    dL/dS = w (softmax(S) - softmax(T)),  dL/dX = (dL/dS + (dL/dS)^T) X / sqrt(d)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["relation_heads", "relation_loss"]

_NEVER = -1e4
# Scores at a time: 1 MB of float32, half of what a core's second cache usually holds.
_SCORES = 2**18


def relation_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    """KL of self-relations, teacher to student, a scalar in float32.

    ``student`` and ``teacher`` are queries, keys or values with all heads side by side, [rows,
    tokens, width]; each is cut anew into ``heads`` heads, so their widths may differ. Real tokens
    (``mask`` [rows, tokens] is 1) relate to real tokens. Differentiable, once, by ``student``.
    """
    found: torch.Tensor = _Relations.apply(student, teacher, mask, heads)  # type: ignore[no-untyped-call]
    return found


def relation_heads(student: int, teacher: int, most: int) -> int:
    """The most heads, at most ``most``, that divide both widths."""
    both = math.gcd(student, teacher)
    return max(heads for heads in range(1, most + 1) if both % heads == 0)


class _Relations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int
    ) -> torch.Tensor:
        real = mask != 0
        weight = 1.0 / max(1.0, float(real.sum()) * heads)
        gradient = torch.zeros_like(student) if student.requires_grad else None
        total = torch.zeros((), dtype=torch.float32, device=student.device)
        for rows, tokens in _parts(real, heads):
            part = real[rows, :tokens]
            padded = not bool(part.all())
            ours, theirs = (_split(x[rows, :tokens], heads) for x in (student, teacher))
            log_q = _log_relations(theirs, part, padded)
            log_p = _log_relations(ours, part, padded)
            q = log_q.exp()
            divergence = log_q.sub_(log_p).mul_(q).sum(dim=-1)
            if padded:
                divergence = divergence * part[:, None]
            total += weight * divergence.sum()
            if gradient is not None:
                slope = log_p.exp_().sub_(q).mul_(weight / math.sqrt(ours.shape[-1]))
                if padded:
                    slope = slope * part[:, None, :, None]
                slope = slope.to(ours.dtype)
                both = slope @ ours + slope.transpose(2, 3) @ ours
                gradient[rows, :tokens] = both.transpose(1, 2).flatten(2).to(gradient.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return slope.to(gradient.dtype) * gradient, None, None, None


def _parts(real: torch.Tensor, heads: int) -> Iterator[tuple[slice, int]]:
    """Rows that are done at once, and up to where one of them has real tokens."""
    places = torch.arange(1, real.shape[1] + 1, device=real.device)
    ends = (real * places).amax(dim=1).tolist()
    start = 0
    while start < len(ends):
        stop, longest = start + 1, ends[start]
        while stop < len(ends):
            longer = max(longest, ends[stop])
            if (stop + 1 - start) * heads * longer**2 > _SCORES:
                break
            stop, longest = stop + 1, longer
        if longest:
            yield slice(start, stop), longest
        start = stop


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[rows, heads, tokens, width / heads]"""
    rows, tokens, width = x.shape
    return x.reshape(rows, tokens, heads, width // heads).transpose(1, 2)


def _log_relations(x: torch.Tensor, real: torch.Tensor, padded: bool) -> torch.Tensor:
    """Logarithms in float32, [rows, heads, tokens, tokens]; the last: to which token."""
    scores = (x @ x.transpose(2, 3)).float().mul_(1 / math.sqrt(x.shape[-1]))
    if padded:
        scores.masked_fill_(~real[:, None, None, :], _NEVER)
    return functional.log_softmax(scores, dim=-1)
