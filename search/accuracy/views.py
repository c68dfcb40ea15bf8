"""Other tensors in the place of a model's parameters, for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["swapped"]


@contextmanager
def swapped(tensors: Mapping[tuple[nn.Module, str], torch.Tensor]) -> Iterator[None]:
    """Inside the block each (module, name) has the tensor given; afterwards its parameter.

    As `torch.func.functional_call` does it, with norms that know their width, and with the model
    still itself: whoever evaluates or hooks models needs no second way.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    widths: list[tuple[nn.LayerNorm, tuple[int, ...]]] = []
    try:
        for (module, name), tensor in tensors.items():
            held: dict[str, Any] = module._parameters
            before.append((held, name, held[name]))
            held[name] = tensor
            if isinstance(module, nn.LayerNorm) and name == "weight":
                widths.append((module, module.normalized_shape))
                module.normalized_shape = tuple(tensor.shape)
        yield
    finally:
        for held, name, parameter in before:
            held[name] = parameter
        for module, width in widths:
            module.normalized_shape = width
