"""The weights a module reads: names and shapes for patterns, tensors for the bundle.

Patterns run without the weights at hand (in another process, without a copy), so a rewrite
that wants a new weight *derives* it: it records how the new one is made of old ones. The
weights are computed once, when the bundle is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """``name`` = what `derivations.compute` makes of ``sources``, as ``kind`` says.

    ``attributes`` are (key, value) pairs; ``shape`` and ``dtype`` are the result's.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    attributes: tuple[tuple[str, int | float | str], ...] = ()

    def to_json(self) -> list[Any]:
        """Plain JSON values."""
        return [self.name, self.kind, list(self.sources), [list(pair) for pair in self.attributes]]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> Derivation:
        """The inverse of `to_json`."""
        name, kind, sources, attributes = values
        return cls(name, kind, tuple(sources), tuple((key, value) for key, value in attributes))


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
        return self.derive(
            "concatenate",
            [part.name for part in parts],
            shape=shape,
            dtype=parts[0].dtype,
            axis=axis,
        )

    def derive(
        self,
        kind: str,
        sources: Sequence[str],
        *,
        shape: Sequence[int],
        dtype: str,
        **attributes: float | str,
    ) -> Parameter:
        """A new parameter of a kind that `derivations.compute` knows.

        Its name tells how it is made, so that equal ones share a name and differing ones do not.
        """
        said = [*sources, *(f"{key}={value}" for key, value in attributes.items())]
        name = f"{kind}({','.join(said)})"
        derived = Parameter(name, tuple(shape), dtype)
        self._known[name] = derived
        self.derivations[name] = Derivation(name, kind, tuple(sources), tuple(attributes.items()))
        return derived


def materialize(
    names: Iterable[str],
    tensors: Mapping[str, torch.Tensor],
    derivations: Mapping[str, Derivation],
) -> dict[str, torch.Tensor]:
    """The tensors called ``names``, contiguous, derived ones computed; sorted by name."""
    from .derivations import compute

    known: dict[str, torch.Tensor] = {}

    def value(name: str) -> torch.Tensor:
        if name in tensors:
            return tensors[name].detach()
        if name not in known:
            derivation = derivations[name]
            sources = [value(source) for source in derivation.sources]
            known[name] = compute(derivation.kind, sources, dict(derivation.attributes))
        return known[name]

    return {name: value(name).contiguous() for name in sorted(set(names))}
