"""Quantised products in PyTorch, in the arithmetic of the kernels.

Activations: for each row 8 bits between its least and its greatest value, or as far below zero as
above, or as they are. Weights: for each output 8 bits, symmetric, or for each group of the depth 4
(`int4`). Sums of integers are
exact in the kernels; here they are sums of f32. Cores multiply in bf16 where they can, what is not
int8: so do the layers that stay wider here, and attention.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .grids import nearest
from .sites import Linear

__all__ = [
    "FakeLinear",
    "Rows",
    "bf16_rows",
    "fake_rows",
    "fake_weight",
    "replaced",
    "symmetric_rows",
]

Rows = Callable[[torch.Tensor], torch.Tensor]
"""What a product knows of its activations."""


def fake_rows(x: torch.Tensor) -> torch.Tensor:
    """What the kernels know of ``x``: each row rounded to 256 steps between its extremes."""
    low, high = x.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    return ((x - low) / scale).round_().mul_(scale).add_(low)


def symmetric_rows(x: torch.Tensor) -> torch.Tensor:
    """As `fake_rows`, each row in 255 steps about zero."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (x / scale).round_().mul_(scale)


def bf16_rows(x: torch.Tensor) -> torch.Tensor:
    """Where weights alone are narrow: what a product of bf16 knows of ``x``."""
    return x.to(torch.bfloat16).to(x.dtype)


def fake_weight(weight: torch.Tensor) -> torch.Tensor:
    """What int8 kernels know of a weight [outputs, depth], or of a table, row by row."""
    return nearest(weight, 8)


@dataclass(frozen=True)
class FakeLinear:
    """A linear layer as a kernel computes it; ``weight`` is of smoothed activations."""

    weight: torch.Tensor
    smoothing: torch.Tensor | None = None
    rows: Rows = fake_rows

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer on activations that are quantised first."""
        smoothed = x if self.smoothing is None else x * self.smoothing
        weight = bf16_rows(self.weight) if self.rows is bf16_rows else self.weight
        return torch.nn.functional.linear(self.rows(smoothed), weight, bias)


@contextmanager
def replaced(
    linears: Mapping[Linear, FakeLinear],
    tables: Mapping[torch.nn.Embedding, torch.Tensor],
    *,
    read: Rows | None = bf16_rows,
) -> Iterator[None]:
    """Inside the block these layers compute so; their weights stay as they are. Of queries, keys
    and values attention knows what ``read`` leaves meanwhile; None: all."""
    functional = torch.nn.functional
    attention = functional.scaled_dot_product_attention
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
        if read is not None:
            functional.scaled_dot_product_attention = functools.partial(
                _attention, attention, read
            )
        yield
    finally:
        functional.scaled_dot_product_attention = attention
        for module, forward in before.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _attention(
    exact: Callable[..., torch.Tensor],
    known: Rows,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *others: Any,
    **options: Any,
) -> torch.Tensor:
    read = (known(one) for one in (query, key, value))
    return exact(*read, *others, **options)


def _linear(
    fake: FakeLinear, module: Linear, *given: torch.Tensor, **named: torch.Tensor
) -> torch.Tensor:
    (x,) = (*given, *named.values())
    return fake(x, module.bias)


def _embedding(table: torch.Tensor, module: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    del module
    return torch.nn.functional.embedding(ids, table)
