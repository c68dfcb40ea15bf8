"""Inputs and outputs of a matrix whose weights are all zero: they can be cut away whole.

Lowering does not see weights, so what is idle travels with the request: a number for each
matrix and side, whose bit i stands for input or output i.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["FILL", "Idle", "IdleLines", "find_idle", "idle_by_parameter", "kept_places", "mask_of"]

IdleLines = tuple[str, str, str]
"""A parameter, and its idle inputs and outputs as hexadecimal numbers."""

FILL = 16
"""What is kept is a multiple of this: kernels and tiles then have no rest."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """The idle inputs and outputs of a weight [outputs, depth]; ``weight`` is the parameter
    that they are found in again when the bundle is written."""

    weight: str
    inputs: int = 0
    outputs: int = 0


def find_idle(tensors: Mapping[str, torch.Tensor]) -> tuple[IdleLines, ...]:
    """Every matrix of floats that has an idle line."""
    found: list[IdleLines] = []
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or 0 in tensor.shape:
            continue
        inputs, outputs = mask_of(tensor, axis=1), mask_of(tensor, axis=0)
        if inputs or outputs:
            found.append((name, f"{inputs:x}", f"{outputs:x}"))
    return tuple(found)


def idle_by_parameter(lines: Iterable[IdleLines]) -> dict[str, Idle]:
    """What is idle in each parameter."""
    return {
        name: Idle(weight=name, inputs=int(inputs, 16), outputs=int(outputs, 16))
        for name, inputs, outputs in lines
    }


def mask_of(weight: torch.Tensor, *, axis: int) -> int:
    """The idle inputs (axis 1) or outputs (axis 0) of a matrix [outputs, depth]."""
    idle: np.ndarray[Any, Any] = (weight == 0).all(dim=1 - axis).numpy()
    return int.from_bytes(np.packbits(idle, bitorder="little").tobytes(), "little")


def kept_places(idle: int, size: int) -> Sequence[int]:
    """Which of ``size`` lines stay, ascending: those not idle, and as many of the first idle
    ones as fill them up to a multiple of `FILL`; at least one such multiple."""
    busy = size - (idle & ((1 << size) - 1)).bit_count()
    spare = -busy % FILL if busy else FILL
    places = []
    for place in range(size):
        if idle >> place & 1:
            if not spare:
                continue
            spare -= 1
        places.append(place)
    return places
