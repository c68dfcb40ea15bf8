"""Weights in 4 bits: codes -8 to 7 and, for each output and 32 neighbours of the depth, a scale.

The largest magnitude of a group has the code -8, so the scale, w / -8, bears its sign, and the
step is an eighth of it where symmetric codes would have a seventh. Scales are bf16, and codes are
of the scale that is stored. A weight that consists of such multiples gives the same again.
"""

from __future__ import annotations

import torch

from ..kernels.weight_format import GROUP

__all__ = ["int4_codes", "int4_pinned", "int4_scales", "int4_steps"]

_LOWEST, _HIGHEST = -8, 7
# Below it a product with a code might not be a normal number: such a group is zero.
_TINY = 1e-30


def int4_scales(weight: torch.Tensor) -> torch.Tensor:
    """The scales [outputs, groups] of a weight [outputs, depth]: f32 values that bf16 holds."""
    groups = _grouped(weight)
    at = groups.abs().argmax(dim=2, keepdim=True)
    scales = groups.gather(2, at).squeeze(2) / _LOWEST
    scales = torch.where(scales.abs() < _TINY, torch.zeros_like(scales), scales)
    return scales.to(torch.bfloat16).to(torch.float32)


def int4_steps(scales: torch.Tensor, depth: int) -> torch.Tensor:
    """The scale of each weight, [outputs, depth]."""
    return scales.repeat_interleave(GROUP, dim=1)[:, :depth]


def int4_codes(weight: torch.Tensor) -> torch.Tensor:
    """The codes [outputs, depth] i8 of a weight in its `int4_scales`."""
    steps = int4_steps(int4_scales(weight), weight.shape[1])
    safe = torch.where(steps == 0, torch.ones_like(steps), steps)
    return (weight / safe).round().clamp(_LOWEST, _HIGHEST).to(torch.int8)


def int4_pinned(weight: torch.Tensor) -> torch.Tensor:
    """Where [outputs, depth] a group's largest magnitude stands: there the code is -8."""
    groups = _grouped(weight)
    pinned = torch.zeros_like(groups, dtype=torch.bool)
    pinned.scatter_(2, groups.abs().argmax(dim=2, keepdim=True), True)
    return pinned.flatten(1)[:, : weight.shape[1]]


def _grouped(weight: torch.Tensor) -> torch.Tensor:
    """[outputs, groups, GROUP], filled up with zeros."""
    outputs, depth = weight.shape
    filled = torch.nn.functional.pad(weight, (0, -depth % GROUP))
    return filled.reshape(outputs, -1, GROUP)
