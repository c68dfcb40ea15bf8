"""Scales moved between activations and weights, where that makes the products more exact.

A channel that is always large costs every other channel of its row its precision. Divided by
s = sqrt(max|x| / max|w|) in the activations and multiplied by it in the weights, both are
equally hard to round, and the product is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .fake import FakeLinear, Rows, fake_rows, fake_weight

__all__ = ["smoothing_for"]

_TRIED_ROWS = 128
_TRIED_OUTPUTS = 1024
# Smoothing costs a multiplication for each value that is quantised.
_WORTH = 0.9


def smoothing_for(
    rows: torch.Tensor,
    weights: Sequence[torch.Tensor],
    quantiser: Callable[[torch.Tensor, Sequence[torch.Tensor]], Rows] = lambda *_: fake_rows,
) -> torch.Tensor | None:
    """The vector to multiply activations by (weights are divided by it); None if none pays.

    ``quantiser`` gets the rows and the weights and says how such rows are quantised.
    """
    weight = torch.cat(list(weights))
    tiny = 1e-5
    of_rows = rows.abs().amax(dim=0).clamp(min=tiny)
    of_weight = weight.abs().amax(dim=0).clamp(min=tiny)
    vector = (of_weight / of_rows).sqrt()
    tried = rows[:: max(1, len(rows) // _TRIED_ROWS)]
    part = weight[:: max(1, len(weight) // _TRIED_OUTPUTS)]
    exact = tried @ part.T
    how = quantiser(tried, [part])
    plain = (FakeLinear(fake_weight(part), None, how)(tried, None) - exact).square().sum()
    how = quantiser(tried * vector, [part / vector])
    smoothed = FakeLinear(fake_weight(part / vector), vector, how)(tried, None)
    better = (smoothed - exact).square().sum() < _WORTH * plain
    return vector if bool(better) else None
