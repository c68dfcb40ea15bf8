"""Quantised products in PyTorch, in the arithmetic of the kernels.

Activations: for each row 8 bits between its least and its greatest value. Weights: for each
output 8 bits, symmetric. Sums of integers are exact in the kernels; here they are sums of f32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..derivations import int8_codes, weight_scales

__all__ = ["FakeLinear", "fake_rows", "fake_weight", "replaced"]


def fake_rows(x: torch.Tensor) -> torch.Tensor:
    """What the kernels know of ``x``: each row rounded to 256 steps between its extremes."""
    low, high = x.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    return ((x - low) / scale).round_().mul_(scale).add_(low)


def fake_weight(weight: torch.Tensor) -> torch.Tensor:
    """What the kernels know of a weight [outputs, depth], or of a table, row by row."""
    return int8_codes(weight) * weight_scales(weight)[:, None]


@dataclass(frozen=True)
class FakeLinear:
    """A linear layer as a kernel computes it; ``weight`` is of smoothed activations."""

    weight: torch.Tensor
    smoothing: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer on activations that are quantised first."""
        smoothed = x if self.smoothing is None else x * self.smoothing
        return torch.nn.functional.linear(fake_rows(smoothed), self.weight, bias)


@contextmanager
def replaced(
    linears: Mapping[torch.nn.Linear, FakeLinear],
    tables: Mapping[torch.nn.Embedding, torch.Tensor],
) -> Iterator[None]:
    """Inside the block these layers compute so; their weights stay as they are."""
    changed: dict[torch.nn.Module, Callable[..., torch.Tensor]] = {}
    for linear, fake in linears.items():
        changed[linear] = functools.partial(_linear, fake, linear)
    for embedding, table in tables.items():
        changed[embedding] = functools.partial(_embedding, table, embedding)
    before: dict[torch.nn.Module, Any] = {
        module: vars(module).get("forward") for module in changed
    }
    try:
        for module, forward in changed.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _linear(fake: FakeLinear, module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return fake(x, module.bias)


def _embedding(table: torch.Tensor, module: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    del module
    return torch.nn.functional.embedding(ids, table)
