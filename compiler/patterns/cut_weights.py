"""Weights without their idle lines, and all that is known of them: what cutting patterns share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..idle import Idle, kept_places
from .base import PatternContext
from .torch_ops import parameter_name, tensor_shape

__all__ = ["Meeting", "idle_of", "is_plain_linear"]

_NUMBERS = ("kept_places", "kept_ranks")


def idle_of(context: PatternContext, name: str) -> Idle:
    """What is idle in the parameter ``name``."""
    return context.idle.get(name) or Idle(weight=name)


def is_plain_linear(op: Any) -> bool:
    """Whether it is a linear layer of f32 with a matrix of the model."""
    if op.name != "torch.aten.linear" or parameter_name(op.operands[1]) is None:
        return False
    shape, element = tensor_shape(op.operands[1])
    return len(shape) == 2 and element == "f32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meeting:
    """``size`` lines that are inputs of the parameters ``readers`` and outputs of ``maker``.

    A line may go where it is idle in every reader, or in the maker.
    """

    context: PatternContext
    size: int
    readers: tuple[str, ...] = ()
    maker: str = ""

    @property
    def idle(self) -> int:
        """The lines that may go."""
        idle = (1 << self.size) - 1 if self.readers else 0
        for reader in self.readers:
            idle &= idle_of(self.context, reader).inputs
        return idle | idle_of(self.context, self.maker).outputs

    @property
    def kept(self) -> int:
        """How many lines stay."""
        return len(kept_places(self.idle, self.size))

    @property
    def weights(self) -> list[str]:
        """Where the lines are found in again: the readers' weights, and the maker's."""
        names = [*self.readers, *([self.maker] if self.maker else [])]
        return [idle_of(self.context, name).weight for name in names]

    def cut(self, name: str, axis: int) -> str:
        """The parameter ``name`` with the lines of ``axis`` that stay.

        Where it is a weight, what a request says of it holds for the new one.
        """
        context = self.context
        new = self._cut(name, axis)
        if name in context.wider:
            context.wider = {**context.wider, new: context.wider[name]}
        if name in context.rounded:
            weight, smoothing = context.rounded[name]
            if smoothing and axis == 1:
                smoothing = self._cut(smoothing, 0)
            context.rounded = {**context.rounded, new: (self._cut(weight, axis), smoothing)}
        if name in context.idle:
            old = context.idle[name]
            left = (
                dataclasses.replace(old, inputs=0) if axis else dataclasses.replace(old, outputs=0)
            )
            context.idle = {**context.idle, new: left}
        return new

    def _cut(self, name: str, axis: int) -> str:
        table = self.context.parameters
        shape = list(table[name].shape)
        shape[axis] = self.kept
        derived = table.derive(
            "cut",
            [name, *self.weights],
            shape=shape,
            dtype=table[name].dtype,
            axis=axis,
            readers=len(self.readers),
        )
        return derived.name

    def derive(self, kind: str, sources: Sequence[str], length: int, **attributes: Any) -> str:
        """A vector of ``length`` that follows from which lines stay (`cutting`)."""
        dtype = "int32" if kind in _NUMBERS else "float32"
        derived = self.context.parameters.derive(
            kind,
            sources,
            shape=(length,),
            dtype=dtype,
            readers=len(self.readers),
            **attributes,
        )
        return derived.name
