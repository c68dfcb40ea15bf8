"""The weights a module reads: names and shapes for patterns, tensors for the bundle.

Patterns run without the weights at hand (in another process, without a copy), so a rewrite
that wants a new weight *derives* it: it records how the new one is made of old ones. The
weights are computed once, when the bundle is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Derivation", "Parameter", "ParameterTable", "materialize"]


@dataclass(frozen=True)
class Parameter:
    """A weight's name, shape and dtype (NumPy's word for it, e.g. ``float32``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Derivation:
    """``name`` = concatenation of ``sources`` along ``axis``."""

    name: str
    sources: tuple[str, ...]
    axis: int


class ParameterTable:
    """The parameters that a module may load, the model's own and derived ones."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._known = {p.name: p for p in parameters}
        self.derivations: dict[str, Derivation] = {}

    def __getitem__(self, name: str) -> Parameter:
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def concatenate(self, sources: Iterable[str], *, axis: int) -> Parameter:
        """A new parameter: ``sources`` joined along ``axis`` (their other dimensions agree)."""
        parts = [self._known[name] for name in sources]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        name = f"concat{axis}(" + ",".join(part.name for part in parts) + ")"
        derived = Parameter(name, tuple(shape), parts[0].dtype)
        self._known[name] = derived
        self.derivations[name] = Derivation(name, tuple(part.name for part in parts), axis)
        return derived


def materialize(
    names: Iterable[str],
    tensors: Mapping[str, torch.Tensor],
    derivations: Mapping[str, Derivation],
) -> dict[str, torch.Tensor]:
    """The tensors called ``names``, contiguous, derived ones computed; sorted by name."""
    import torch

    def value(name: str) -> torch.Tensor:
        if name in tensors:
            return tensors[name]
        derivation = derivations[name]
        return torch.cat([value(source) for source in derivation.sources], dim=derivation.axis)

    return {name: value(name).detach().contiguous() for name in sorted(set(names))}
