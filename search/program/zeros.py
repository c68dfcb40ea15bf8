"""What a lowering request would say of the zeros in an architecture's weights.

Counted on the drawn blocks (`space.masks`) rather than on weights, so it takes no time; the same
numbers as `compiler.sparsity` and `compiler.idle` find in a fresh model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.idle import Idle
from ...compiler.kernels.sparse_choice import Cut, cuts
from ...compiler.sparsity import LEAST_ZEROS

__all__ = ["Drawn", "counts_of", "idle_of"]


@dataclass(frozen=True)
class Drawn:
    """A weight [outputs, depth] whose ``blocks`` [panels, groups] of (inputs, outputs) stay."""

    blocks: NDArray[np.bool_]
    block: tuple[int, int]
    shape: tuple[int, int]

    @property
    def key(self) -> tuple[bytes, tuple[int, int], tuple[int, int], tuple[int, int]]:
        """What two of them are alike in."""
        return self.blocks.tobytes(), self.blocks.shape, self.block, self.shape


def counts_of(drawn: Drawn) -> Mapping[Cut, int]:
    """Surviving blocks for each way of cutting the weight; empty where it is hardly sparse."""
    return _Counts(drawn) if _zeros(drawn) >= LEAST_ZEROS else {}


def idle_of(name: str, drawn: Drawn) -> Idle | None:
    """The inputs and outputs of the weight ``name`` that have zeros alone; None if none has."""
    inputs, outputs = _idle(drawn.key)
    return Idle(weight=name, inputs=inputs, outputs=outputs) if inputs or outputs else None


class _Counts(Mapping[Cut, int]):
    """Counted when they are asked for."""

    def __init__(self, drawn: Drawn) -> None:
        self._drawn = drawn

    def __getitem__(self, cut: Cut) -> int:
        if cut not in _all_cuts():
            raise KeyError(cut)
        return _count(self._drawn.key, cut)

    def __iter__(self) -> Iterator[Cut]:
        return iter(sorted(_all_cuts()))

    def __len__(self) -> int:
        return len(_all_cuts())


@lru_cache(maxsize=1)
def _all_cuts() -> frozenset[Cut]:
    return frozenset(cuts())


def _zeros(drawn: Drawn) -> float:
    """The share of a weight's elements that are zero."""
    (inputs, outputs), (height, width) = drawn.block, drawn.shape
    heights = np.full(drawn.blocks.shape[0], outputs)
    heights[-1] = height - outputs * (len(heights) - 1)
    widths = np.full(drawn.blocks.shape[1], inputs)
    widths[-1] = width - inputs * (len(widths) - 1)
    return 1 - float(heights @ drawn.blocks @ widths) / (height * width)


@lru_cache(maxsize=65536)
def _count(key: Any, cut: Cut) -> int:
    """As `compiler.sparsity` counts, on a picture in which each dot is as many weights as lie in
    one block of both kinds."""
    group_in, panel, multiple = cut
    (inputs, outputs), (height, width) = key[2], key[3]
    tall, wide = math.gcd(panel, outputs, height), math.gcd(group_in, inputs, width)
    blocks = np.frombuffer(key[0], np.bool_).reshape(key[1])
    dots = blocks.repeat(outputs // tall, 0).repeat(inputs // wide, 1)
    dots = dots[: height // tall, : width // wide]
    high, across = panel // tall, group_in // wide
    panels, columns = -(-dots.shape[0] // high), -(-dots.shape[1] // across)
    full = np.zeros((panels * high, columns * across), np.bool_)
    full[: dots.shape[0], : dots.shape[1]] = dots
    alive = full.reshape(panels, high, columns, across).any(axis=(1, 3)).sum(axis=1)
    return int((-(-alive // multiple) * multiple).sum())


@lru_cache(maxsize=65536)
def _idle(key: Any) -> tuple[int, int]:
    """Idle inputs and outputs, a bit for each."""
    (inputs, outputs), (height, width) = key[2], key[3]
    blocks = np.frombuffer(key[0], np.bool_).reshape(key[1])
    idle_inputs, idle_outputs = np.all(~blocks, axis=0), np.all(~blocks, axis=1)
    return _bits(idle_inputs, inputs, width), _bits(idle_outputs, outputs, height)


def _bits(idle: NDArray[np.bool_], each: int, size: int) -> int:
    lines = idle.repeat(each)[:size]
    return int.from_bytes(np.packbits(lines, bitorder="little").tobytes(), "little")
