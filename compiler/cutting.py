"""Derived parameters of products without their idle lines (`idle`), as `derivations` makes them.

Each takes the weights that meet at the lines among its sources: ``readers`` that have them as
inputs, and perhaps one maker that has them as outputs. A line is left out where it is idle in
every reader, or in the maker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .idle import kept_places, mask_of

if TYPE_CHECKING:
    import torch

__all__ = ["ACTIVATIONS", "constant_part", "cut", "places", "ranks"]

Attributes = Mapping[str, Any]

ACTIVATIONS = ("none", "gelu", "gelu_tanh", "relu", "silu", "tanh")
"""What `constant_part` can apply."""


def cut(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """The first source with the lines of ``axis`` that stay."""
    first, *weights = sources
    axis = attributes["axis"]
    return first.index_select(axis, _kept(weights, attributes["readers"], first.shape[axis]))


def places(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """The numbers of the lines that stay."""
    return _kept(sources, attributes["readers"], attributes["size"])


def ranks(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """Of every line its number among those that stay, or -1."""
    import torch

    kept = places(sources, attributes)
    found = torch.full((attributes["size"],), -1, dtype=torch.int32)
    found[kept.long()] = torch.arange(len(kept), dtype=torch.int32)
    return found


def constant_part(sources: Sequence[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    """What the lines left out add to a reader's result, and its bias: w act(b) + b'.

    Sources: w, the readers, the maker; then the maker's bias b and the reader's b' where there
    is one. A line left out whose maker is not idle has no weight in any reader.
    """
    import torch

    weight, *others = sources
    readers = attributes["readers"]
    meeting, (bias, *more) = others[: readers + 1], others[readers + 1 :]
    constant = _apply(attributes["activation"], bias.double())
    constant[_kept(meeting, readers, len(bias)).long()] = 0
    # Zero times what is not finite is nothing here, as it is where the line is cut.
    parts = torch.where(weight == 0, 0.0, weight.double() * constant)
    whole = parts.sum(dim=1)
    for one in more:
        whole = whole + one.double()
    return whole.to(weight.dtype)


def _kept(weights: Sequence[torch.Tensor], readers: int, size: int) -> torch.Tensor:
    import torch

    idle = (1 << size) - 1 if readers else 0
    for reader in weights[:readers]:
        idle &= mask_of(reader, axis=1)
    for maker in weights[readers:]:
        idle |= mask_of(maker, axis=0)
    return torch.tensor(kept_places(idle, size), dtype=torch.int32)


def _apply(activation: str, values: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    known: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "none": torch.clone,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "relu": torch.relu,
        "silu": functional.silu,
        "tanh": torch.tanh,
    }
    return known[activation](values)
