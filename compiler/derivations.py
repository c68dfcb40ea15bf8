"""How a derived parameter is computed from a model's own, by the kind a pattern recorded.

Each kind is one function from tensors and attributes to a tensor. They run once, when the
bundle is written, in the process that holds the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cutting, stored

if TYPE_CHECKING:
    import torch

__all__ = ["compute", "int8_codes", "weight_scales"]

Attributes = Mapping[str, Any]


def compute(kind: str, sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """The tensor that ``kind`` makes of ``sources``."""
    return _KINDS[kind](sources, attributes)


def _concatenate(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    import torch

    return torch.cat(list(sources), dim=attributes["axis"])


def _pack(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """A weight [outputs, depth] as the engine reads it, in the engine's element."""
    import torch

    from .kernels.engines.registry import by_label

    engine = by_label(attributes["engine"])
    (weight,) = sources
    return torch.from_numpy(engine.pack(_stored(weight, engine.precision).numpy()))


def _pack_sparse(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """[1, elements]: the surviving blocks of a weight, in the engine's element and order."""
    import torch

    from .kernels.sparse_choice import sparse_by_label, sparse_layout

    (weight,) = sources
    engine = sparse_by_label(attributes["engine"])
    layout = sparse_layout(engine, *weight.shape)
    stored = _stored(weight, engine.precision)
    packed = layout.pack(stored.numpy(), layout.survivors(weight.numpy()))
    return torch.from_numpy(packed.reshape(1, -1))


def _sparse_index(
    sources: Sequence[torch.Tensor], attributes: Attributes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the surviving blocks of a weight stand, and where each panel's begin."""
    import torch

    from .kernels.sparse_choice import sparse_by_label, sparse_layout

    (weight,) = sources
    layout = sparse_layout(sparse_by_label(attributes["engine"]), *weight.shape)
    places, starts = layout.index(layout.survivors(weight.numpy()))
    return torch.from_numpy(places), torch.from_numpy(starts)


def _stored(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """A weight in the element that an engine of this precision reads."""
    import torch

    if precision == "f16":
        return _narrowed([weight], {"element": "f16"})
    if precision == "bf16":
        return weight.to(torch.bfloat16).view(torch.int16)
    return int8_codes(weight) if precision == "int8" else weight


def weight_scales(weight: torch.Tensor) -> torch.Tensor:
    """Symmetric scales [outputs] of an int8 weight: its largest magnitude over 127."""
    largest = weight.abs().amax(dim=1)
    return (largest / 127).clamp(min=float(np.finfo(np.float32).tiny))


def int8_codes(weight: torch.Tensor) -> torch.Tensor:
    """The int8 weight, -127 to 127, in its `weight_scales`."""
    import torch

    scaled = weight / weight_scales(weight)[:, None]
    return scaled.round().clamp(-127, 127).to(torch.int8)


def _codes(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    del attributes
    return int8_codes(sources[0])


def _narrowed(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """A weight in another float, its magnitudes cut to the largest that there is; ``i16``: the
    bits of bf16."""
    import torch

    element = attributes["element"]
    dtype = torch.float16 if element == "f16" else torch.bfloat16
    largest = torch.finfo(dtype).max
    narrow = sources[0].clamp(-largest, largest).to(dtype)
    return narrow.view(torch.int16) if element == "i16" else narrow


def _scales(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    del attributes
    return weight_scales(sources[0])


def _static(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """(scale, offset) of 8-bit codes for a range [least, greatest]; signed ones are 128 less."""
    import torch

    low, high = sources[0]
    scale = (high - low) / 255
    return torch.stack([scale, low + 128 * scale if attributes["codes"] == "s8" else low])


def _column_sums(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """scale[n] times the sum of the quantised weight over the depth."""
    import torch

    del attributes
    (weight,) = sources
    return weight_scales(weight) * int8_codes(weight).sum(dim=1, dtype=torch.float32)


_KINDS: dict[str, Callable[[Sequence[torch.Tensor], Attributes], torch.Tensor]] = {
    "concatenate": _concatenate,
    "pack": _pack,
    "pack_sparse": _pack_sparse,
    "sparse_places": lambda sources, attributes: _sparse_index(sources, attributes)[0],
    "sparse_starts": lambda sources, attributes: _sparse_index(sources, attributes)[1],
    "codes": _codes,
    "scales": _scales,
    "column_sums": _column_sums,
    "narrowed": _narrowed,
    "transposed": lambda sources, _: sources[0].T.contiguous(),
    "static": _static,
    "stored_words": stored.stored_words,
    "stored_scales": stored.stored_scales,
    "cut": cutting.cut,
    "kept_places": cutting.places,
    "kept_ranks": cutting.ranks,
    "constant_part": cutting.constant_part,
}
