"""How weight-only products store a weight: codes in words of 32 bits, tile by tile of outputs.

A *tile* is as many neighbouring outputs as a vector has lanes. A word holds neighbours along the
depth of one output, the first in the lowest bits: four codes of 8 bits or eight of 4, in two's
complement. The words of a tile stand depth by depth, so that one vector of words is one load::

    words[tile, (k / per_word) * lanes + lane] = code[n, k] | code[n, k + 1] << bits | ...
    n = tile * lanes + lane

Codes of 8 bits have one scale for each output, f32. Codes of 4 bits have one for each output and
each `GROUP` of the depth, bf16 in i16. The depth is filled up to whole groups with zeros, the
outputs to whole tiles. Nothing here depends on an engine or on the rows of a product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUP", "WeightFormat"]

GROUP = 32
"""Neighbours along the depth that share a scale of 4-bit codes."""

_WORD = 32

Array = NDArray[Any]


@dataclass(frozen=True)
class WeightFormat:
    """``bits`` (8 or 4) of a code, for vectors of ``lanes`` outputs."""

    bits: int
    lanes: int

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.lanes not in (4, 8, 16):
            raise ValueError(f"no weights are stored in {self.bits} bits for {self.lanes} lanes")

    @property
    def per_word(self) -> int:
        """Codes in one word."""
        return _WORD // self.bits

    def tiles(self, outputs: int) -> int:
        """Tiles of a weight, the last one perhaps not full."""
        return math.ceil(outputs / self.lanes)

    def groups(self, depth: int) -> int:
        """Groups along the depth, the last one perhaps not full."""
        return math.ceil(depth / GROUP)

    def words_shape(self, outputs: int, depth: int) -> tuple[int, int]:
        """Of the words, i32."""
        each = self.groups(depth) * GROUP // self.per_word
        return self.tiles(outputs), each * self.lanes

    def scales_shape(self, outputs: int, depth: int) -> tuple[int, int]:
        """Of the scales: f32 for 8 bits, bf16 in i16 for 4."""
        each = self.groups(depth) if self.bits == 4 else 1
        return self.tiles(outputs), each * self.lanes

    def pack(self, codes: Array) -> Array:
        """Codes [outputs, depth] i8 as words."""
        outputs, depth = codes.shape
        tiles, groups = self.tiles(outputs), self.groups(depth)
        full = np.zeros((tiles * self.lanes, groups * GROUP), np.uint32)
        full[:outputs, :depth] = codes.astype(np.int32).view(np.uint32) & ((1 << self.bits) - 1)
        split = full.reshape(tiles, self.lanes, -1, self.per_word)
        shifts = np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.bits)
        words = np.bitwise_or.reduce(split << shifts, axis=3)
        ordered = words.transpose(0, 2, 1)
        return np.ascontiguousarray(ordered).reshape(tiles, -1).view(np.int32)

    def unpack(self, words: Array, outputs: int, depth: int) -> Array:
        """The inverse of `pack`: [outputs, depth] i8."""
        tiles = self.tiles(outputs)
        split = words.view(np.uint32).reshape(tiles, -1, self.lanes).transpose(0, 2, 1)
        up = np.uint32(_WORD - self.bits)
        shifts = up - np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.bits)
        codes = (split[..., None] << shifts).view(np.int32) >> np.int32(up)
        full = codes.reshape(tiles * self.lanes, -1)
        return full[:outputs, :depth].astype(np.int8)

    def pack_scales(self, scales: Array) -> Array:
        """Scales [outputs, 1 or groups], f32 or bf16 in i16, in the order of the words."""
        outputs, groups = scales.shape
        tiles = self.tiles(outputs)
        full = np.zeros((tiles * self.lanes, groups), scales.dtype)
        full[:outputs] = scales
        ordered = full.reshape(tiles, self.lanes, groups).transpose(0, 2, 1)
        return np.ascontiguousarray(ordered).reshape(tiles, -1)

    def unpack_scales(self, packed: Array, outputs: int) -> Array:
        """The inverse of `pack_scales`."""
        tiles = self.tiles(outputs)
        ordered = packed.reshape(tiles, -1, self.lanes).transpose(0, 2, 1)
        return ordered.reshape(tiles * self.lanes, -1)[:outputs]

    def dequantised(self, words: Array, scales: Array, outputs: int, depth: int) -> Array:
        """The weight [outputs, depth] f32 that packed words and scales stand for."""
        factors = self.unpack_scales(scales, outputs)
        if self.bits == 4:
            factors = (factors.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            factors = np.repeat(factors, GROUP, axis=1)[:, :depth]
        return self.unpack(words, outputs, depth).astype(np.float32) * factors
