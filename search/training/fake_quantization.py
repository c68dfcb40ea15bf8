"""Quantisation-aware training: linear layers that compute as the compiler's int8 kernels do.

Forward: activations of 8 bits between the extremes of each row, weights of 8 bits symmetric for
each output (`compiler.quantization.fake`), the product in float32 whatever the autocast. Backward:
the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432), rounding counts as the
identity: the gradients are those of the product of the rounded values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ...compiler.compression.matching import products
from ...compiler.compression.recipe import Recipe
from ...compiler.quantization.fake import fake_rows, fake_weight
from ...compiler.quantization.sites import LEAST
from .simulation import precision_in

__all__ = ["FakeQuantized", "quantized_linears"]


class _Product(torch.autograd.Function):
    """x [..., depth] times weight [outputs, depth] transposed, both rounded to 8 bits."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        kind = x.device.type
        narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            rows, columns = fake_rows(x.float()), fake_weight(weight)
            ctx.save_for_backward(rows.to(narrow), columns.to(narrow))
            ctx.dtype = x.dtype
            return nn.functional.linear(rows, columns)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = ctx.saved_tensors
        narrow = gradient.to(rows.dtype)
        to_weight = narrow.flatten(0, -2).T @ rows.flatten(0, -2)
        return (narrow @ columns).to(ctx.dtype), to_weight.float()


class FakeQuantized:
    """Linear layers of a model that can be switched to 8 bits and back; weights stay where they
    are, so checkpoints and optimisers see no difference."""

    def __init__(self, linears: Collection[nn.Module]) -> None:
        self._linears = list(linears)
        self.active = False

    def __len__(self) -> int:
        return len(self._linears)

    def activate(self) -> None:
        """From now on these layers compute in 8 bits."""
        if not self.active:
            for linear in self._linears:
                vars(linear)["forward"] = functools.partial(_forward, linear)
        self.active = True

    def deactivate(self) -> None:
        """These layers compute as they did."""
        if self.active:
            for linear in self._linears:
                vars(linear).pop("forward", None)
        self.active = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside the block these layers compute in 8 bits."""
        before = self.active
        self.activate()
        try:
            yield
        finally:
            if not before:
                self.deactivate()


def quantized_linears(model: Any, recipe: Recipe) -> dict[str, Any]:
    """The layers, linear ones and Conv1D, that ``recipe`` makes int8, by the names of their
    weights.

    Layers with fewer than 16 inputs or outputs stay wide, as the compiler leaves them.
    """
    return {
        name: layer
        for name, layer in products(model, shared=True).items()
        if min(layer.weight.shape) >= LEAST and precision_in(recipe, name, model) == "int8"
    }


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    product: Callable[..., torch.Tensor] = _Product.apply
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    result = product(x, weight)
    return result if layer.bias is None else result + layer.bias
