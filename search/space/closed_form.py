"""What an architecture costs, without building it.

The same sums as `compression.costs.model_costs`, to the last number, over shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...compiler.compression.costs import Costs
from ...compiler.quantization.sites import LEAST
from ...compiler.quantization.tables import LEAST_TABLE
from .architecture import KINDS, Architecture, MatrixForm

__all__ = ["costs_of"]

_WIDTH = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}


@dataclass(frozen=True)
class _Matrix:
    """A weight [outputs, inputs] that ``rows`` of a text meet."""

    outputs: int
    inputs: int
    rows: int
    form: MatrixForm
    block: tuple[int, int]

    @property
    def count(self) -> int:
        return self.outputs * self.inputs

    @property
    def blocks(self) -> tuple[int, int]:
        return math.ceil(self.outputs / self.block[1]), math.ceil(self.inputs / self.block[0])

    @property
    def density(self) -> float:
        """The share of blocks that a rule leaves, as a mean of f32 tells it."""
        if self.form.density == 1:
            return 1.0
        panels, groups = self.blocks
        # In the order of `validation.kept_blocks`: products of floats do not associate.
        kept = round(self.form.density * panels * groups)
        return float(np.float32(kept) / np.float32(panels * groups))

    @property
    def bytes(self) -> float:
        if min(self.outputs, self.inputs) < LEAST:
            return 4 * self.count
        precision = self.form.precision
        if precision == "int4-weights":
            return self.count / 2 + 2 * self.outputs * math.ceil(self.inputs / 32)
        if precision == "int8-weights":
            return self.count + 4 * self.outputs
        density = self.density
        size = self.count * density * _WIDTH[precision]
        if precision == "int8":
            size += 8 * self.outputs
        if density < 1:
            panels, groups = self.blocks
            size += 4 * (math.ceil(panels * groups * density) + panels + 1)
        return size


def costs_of(architecture: Architecture) -> Costs:
    """See `Architecture.costs`."""
    matrices = list(_matrices(architecture))
    tables = list(_tables(architecture))
    vectors = sum(_vectors(architecture))
    flops = sum(2 * m.rows * m.count * m.density for m in matrices)
    for layer in architecture.layers:
        flops += 4 * layer.heads * architecture.head_size * architecture.seq_len**2
    stored = vectors + sum(rows * width for rows, width in tables)
    size = 4.0 * vectors + sum(m.bytes for m in matrices)
    for rows, width in tables:
        narrow = architecture.embedding_int8 and rows * width >= LEAST_TABLE
        size += rows * width + 4 * rows if narrow else 4 * rows * width
    params = stored + sum(m.count * m.density for m in matrices)
    return Costs(params=round(params), flops=round(flops), bytes=round(size))


def _matrices(a: Architecture) -> Iterator[_Matrix]:
    for number in range(len(a.layers)):
        for kind in KINDS:
            outputs, inputs, form = a.matrix(number, kind)
            for _ in range(3 if kind == "qkv" else 1):
                yield _Matrix(outputs, inputs, a.seq_len, form, a.block)
    rest = MatrixForm(precision=a.rest)
    if a.embedding_rank is not None:
        yield _Matrix(a.hidden, a.embedding_rank, a.seq_len, rest, a.block)
    if a.head in ("base", "sequence-classification"):
        yield _Matrix(a.hidden, a.hidden, 1, rest, a.block)
    if a.head != "base":
        rows = 1 if a.head == "sequence-classification" else a.seq_len
        yield _Matrix(a.labels, a.hidden, rows, rest, a.block)


def _tables(a: Architecture) -> Iterator[tuple[int, int]]:
    yield a.vocabulary, a.embedding_rank or a.hidden
    yield a.positions, a.hidden
    yield a.types, a.hidden


def _vectors(a: Architecture) -> Iterator[int]:
    """Biases and norms."""
    yield 2 * a.hidden
    for layer in a.layers:
        yield 3 * layer.heads * a.head_size + a.hidden + layer.ffn + a.hidden + 4 * a.hidden
    if a.head in ("base", "sequence-classification"):
        yield a.hidden
    if a.head != "base":
        yield a.labels
