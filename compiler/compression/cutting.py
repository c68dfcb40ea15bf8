"""Keeping some rows or columns of a module's parameters, sizes and shared weights included."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["Kept", "input_axis", "keep", "output_axis", "replace_parameters", "without_weights"]

Kept = tuple[nn.Parameter, int, torch.Tensor]
"""A parameter, one of its axes, and the places along it that stay (int64, in their order)."""


def output_axis(matrix: nn.Module) -> int:
    """The axis of ``matrix.weight`` that its outputs are along."""
    return 1 if isinstance(matrix, Conv1D) else 0


def input_axis(matrix: nn.Module) -> int:
    """The axis of ``matrix.weight`` that its inputs are along."""
    return 1 - output_axis(matrix)


def keep(model: nn.Module, wanted: Iterable[Kept]) -> None:
    """Cut parameters of ``model`` in place; one that several modules share stays shared."""
    chosen: dict[nn.Parameter, list[tuple[int, torch.Tensor]]] = {}
    for parameter, axis, index in wanted:
        chosen.setdefault(parameter, []).append((axis, index))

    def cut(parameter: nn.Parameter) -> torch.Tensor | None:
        if parameter not in chosen:
            return None
        found = parameter.detach()
        for axis, index in chosen[parameter]:
            found = found.index_select(axis, index.to(found.device))
        return found

    replace_parameters(model, cut)


def without_weights(model: Any) -> Any:
    """A copy of ``model`` whose parameters have shapes alone."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def replace_parameters(
    model: nn.Module, make: Callable[[nn.Parameter], torch.Tensor | None]
) -> None:
    """Put ``make(parameter)`` in the place of each parameter, where it is not None."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for parameter in model.parameters():
        found = make(parameter)
        if found is not None:
            made[parameter] = nn.Parameter(found, requires_grad=parameter.requires_grad)
    for module in model.modules():
        for name, parameter in list(
            module.named_parameters(recurse=False, remove_duplicate=False)
        ):
            if parameter in made:
                setattr(module, name, made[parameter])
        _note_sizes(module)


def _note_sizes(module: nn.Module) -> None:
    """What a module says of its own sizes follows its weight."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter):
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, Conv1D):
        module.nx, module.nf = weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(weight.shape)
