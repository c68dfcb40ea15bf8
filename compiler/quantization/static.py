"""Static scales: one range for all activations of a site, found on the calibration's samples.

The range is that of the rows that were seen, or a part of it where the product's error is less:
what lies outside saturates, and what lies inside has finer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["StaticRows", "range_for"]

_PARTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_TRIED_ROWS = 256
_TRIED_OUTPUTS = 512


@dataclass(frozen=True)
class StaticRows:
    """Rows in 256 steps between the two ends of ``range`` [2]."""

    range: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What the kernels know of ``x``."""
        low, high = self.range
        scale = (high - low) / 255
        found: torch.Tensor = ((x - low) / scale).round_().clamp_(0, 255).mul_(scale).add_(low)
        return found


def range_for(rows: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """[least, greatest] for activations like ``rows`` [n, depth], zero within, that makes the
    least squared error of their products with ``weights`` [outputs, depth]."""
    weight = torch.cat(list(weights))
    low, high = rows.min().clamp(max=0), rows.max().clamp(min=0)
    if float(high - low) < 1e-20:
        high = low + 1e-20  # rows of zeros: any range does
    tried = rows[:: max(1, len(rows) // _TRIED_ROWS)]
    part = weight[:: max(1, len(weight) // _TRIED_OUTPUTS)]
    candidates = [
        torch.stack([low * below, high * above])
        for below in _PARTS
        for above in _PARTS
        if below in (1.0, above) or above == 1.0
    ]
    errors = [
        float(((StaticRows(one)(tried) - tried) @ part.T).square().sum()) for one in candidates
    ]
    return candidates[errors.index(min(errors))]
