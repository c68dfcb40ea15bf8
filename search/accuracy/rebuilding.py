"""What a matrix becomes without most of its blocks, where no training mends it.

The inputs that a matrix sees are correlated, so what the blocks that go would have added can in
part be told from the inputs of those that stay: by least squares, once the inputs' mean and
covariance are known (Hassibi and Stork 1993, Optimal Brain Surgeon; Frantar and Alistarh 2023,
SparseGPT, 2301.00774). Which blocks stay is told by the squares of weights times those of inputs
(Sun et al. 2023, Wanda, 2306.11695). Training would do better; this needs no step of it, and loses
most where training does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...compiler.compression.blocks import block_sums

__all__ = ["Moments", "observe", "rebuilt"]

_DAMPING = 0.01
"""Added to variances, as a share of their mean: tokens are few, and some inputs are constant. So
no eigenvalue is less than the hundredth part of the mean one, and float32 will do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Of a matrix's inputs over tokens: ``mean`` [inputs], ``covariance`` [inputs, inputs]."""

    mean: torch.Tensor
    covariance: torch.Tensor


class _Sums:
    def __init__(self) -> None:
        self.count = 0
        self.sum = torch.zeros(())
        self.products = torch.zeros(())

    def add(self, inputs: torch.Tensor) -> None:
        """``inputs`` [tokens, inputs]."""
        self.count += len(inputs)
        self.sum = self.sum + inputs.sum(0)
        self.products = self.products + inputs.t() @ inputs

    def moments(self) -> Moments:
        mean = self.sum / self.count
        return Moments(mean=mean, covariance=self.products / self.count - torch.outer(mean, mean))


def observe(
    model: Any,
    linears: Sequence[nn.Linear],
    batches: Iterable[Mapping[str, torch.Tensor]],
    *,
    bf16: bool,
) -> list[Moments]:
    """Moments of what each of ``linears`` reads while ``model`` runs over ``batches``, inputs
    without labels; tokens of padding do not count."""
    sums = [_Sums() for _ in linears]
    real = torch.zeros(())
    kind = next(model.parameters()).device.type

    def note(place: int) -> Any:
        def read(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            del module
            with torch.autocast(kind, enabled=False):  # else products would be sums in bf16
                sums[place].add(given[0][real].float())

        return read

    hooks = [linear.register_forward_pre_hook(note(place)) for place, linear in enumerate(linears)]
    try:
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=bf16):
            for batch in batches:
                real = batch["attention_mask"].bool()
                model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [one.moments() for one in sums]


def rebuilt(
    weight: torch.Tensor,
    bias: torch.Tensor,
    moments: Moments,
    block: tuple[int, int],
    density: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) with the share ``density`` of the blocks (inputs, outputs), the others zero:
    what comes nearest, in squares over tokens, to what ``weight`` [outputs, inputs] computes."""
    with torch.no_grad():
        mean, covariance = moments.mean, moments.covariance
        variance = covariance.diagonal()
        scores = block_sums(weight.square() * (variance + mean.square()), block)
        order = torch.argsort(scores.flatten(), descending=True, stable=True)
        alive = torch.zeros(scores.numel(), dtype=torch.bool)
        alive[order[: round(density * scores.numel())]] = True
        damped = covariance + torch.diag_embed(
            (_DAMPING * variance.mean()).clamp_min(1e-12).expand_as(variance)
        )
        wanted = weight @ damped
        found = torch.zeros_like(weight)
        for panel, groups in enumerate(alive.reshape(scores.shape)):
            kept = groups.repeat_interleave(block[0])[: weight.shape[1]].nonzero()[:, 0]
            if len(kept):
                rows = slice(panel * block[1], (panel + 1) * block[1])
                factor = torch.linalg.cholesky(damped[kept][:, kept])
                found[rows, kept] = torch.cholesky_solve(wanted[rows, kept].t(), factor).t()
        return found, bias + (weight - found) @ mean
