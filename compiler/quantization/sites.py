"""Where a model multiplies by weights, and what it multiplies there.

A *site* is a tensor of activations and the linear layers that read it: Q, K and V are one site.
Its activations are quantised once for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from transformers.pytorch_utils import Conv1D

from ..wrapper import Entry

__all__ = ["LEAST", "Inputs", "Linear", "Site", "matrix_of", "observe"]

LEAST = 16
"""Products of fewer outputs, or of less depth, no kernel takes."""

_MOST_ROWS = 512

Inputs = tuple[torch.Tensor, ...]
Linear: TypeAlias = Any
"""A torch.nn.Linear, or a Conv1D of transformers (GPT-2), whose weight is [depth, outputs]."""


def matrix_of(linear: Linear) -> torch.Tensor:
    """The weight [outputs, depth] of a layer."""
    weight: torch.Tensor = linear.weight.detach()
    return weight.T.contiguous() if isinstance(linear, Conv1D) else weight


@dataclass(eq=False)
class Site:
    """``linears``: by the name of their weight; ``rows``: activations seen there."""

    linears: dict[str, Linear]
    rows: torch.Tensor
    largest: float
    multiply_adds: int

    @property
    def name(self) -> str:
        """The first layer's path."""
        return next(iter(self.linears)).removesuffix(".weight")


@dataclass(eq=False)
class _Seen:
    name: str
    linear: Linear
    first: tuple[int, ...] | None = None
    rows: list[torch.Tensor] = field(default_factory=list)


def observe(entry: Entry, samples: Sequence[Inputs]) -> list[Site]:
    """Run the model on ``samples``; its sites in the order in which they are reached.

    Layers that the samples do not reach have no site. A weight that several layers share has
    one, with what all of them read.
    """
    seen: dict[int, _Seen] = {}
    order: list[_Seen] = []
    kept: list[torch.Tensor] = []
    hooks = []
    for path, module in entry.model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and min(module.weight.shape) >= LEAST:
            found = seen.setdefault(
                module.weight.data_ptr(), _Seen(f"{path}.weight".removeprefix("."), module)
            )
            hook = functools.partial(_note, found, order, kept)
            hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        for sample in samples:
            with torch.no_grad():
                entry.call(sample)
            kept.clear()
    finally:
        for hook_ in hooks:
            hook_.remove()
    groups: dict[tuple[int, ...], list[_Seen]] = {}
    for found in order:
        assert found.first is not None
        groups.setdefault(found.first, []).append(found)
    return [_site(group) for group in groups.values()]


def _note(
    found: _Seen,
    order: list[_Seen],
    kept: list[torch.Tensor],
    module: torch.nn.Module,
    given: tuple[torch.Tensor, ...],
    named: dict[str, torch.Tensor],
) -> None:
    del module
    (x,) = (*given, *named.values())
    kept.append(x)  # so that no other tensor of this run lies at its address
    if found.first is None:
        found.first = (x.data_ptr(), x.numel(), x.shape[-1])
        order.append(found)
    found.rows.append(x.detach().reshape(-1, x.shape[-1]))


def _site(group: list[_Seen]) -> Site:
    rows = torch.cat(group[0].rows)
    largest = float(rows.abs().max())
    count = sum(len(part) for part in group[0].rows)
    if len(rows) > _MOST_ROWS:
        rows = rows[torch.linspace(0, len(rows) - 1, _MOST_ROWS).long()]
    return Site(
        linears={found.name: found.linear for found in group},
        rows=rows.clone(),
        largest=largest,
        multiply_adds=sum(count * found.linear.weight.numel() for found in group),
    )
