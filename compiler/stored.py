"""Weights as weight-only products store them: the derivations of `patterns.stored_weight`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .kernels.weight_format import WeightFormat

__all__ = ["stored_scales", "stored_words"]


def stored_words(sources: Sequence[torch.Tensor], attributes: Mapping[str, Any]) -> torch.Tensor:
    """The codes of a weight [outputs, depth], packed (`WeightFormat.pack`)."""
    import torch

    from .derivations import int8_codes
    from .quantization.int4 import int4_codes

    (weight,) = sources
    form = _format(attributes)
    codes = int4_codes(weight) if form.bits == 4 else int8_codes(weight)
    return torch.from_numpy(form.pack(codes.numpy()))


def stored_scales(sources: Sequence[torch.Tensor], attributes: Mapping[str, Any]) -> torch.Tensor:
    """The scales of a weight [outputs, depth], packed (`WeightFormat.pack_scales`)."""
    import torch

    from .derivations import weight_scales
    from .quantization.int4 import int4_scales

    (weight,) = sources
    form = _format(attributes)
    if form.bits == 4:
        scales = int4_scales(weight).to(torch.bfloat16).view(torch.int16)
    else:
        scales = weight_scales(weight)[:, None]
    return torch.from_numpy(form.pack_scales(scales.numpy()))


def _format(attributes: Mapping[str, Any]) -> WeightFormat:
    from .kernels.weight_format import WeightFormat

    return WeightFormat(attributes["bits"], attributes["lanes"])
