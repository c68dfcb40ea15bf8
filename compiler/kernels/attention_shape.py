"""What an attention kernel computes, and from where: its static parameters.

q, k and v are row-major matrices with one row a token, in one operand or in several; a `View`
says which operand a part is in and where its columns begin. So the result of one product for
q, k and v together is passed as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

__all__ = ["AttentionShape", "Matrix", "Sources", "View"]


@dataclass(frozen=True)
class AttentionShape:
    """softmax(q k^T * scale + bias) v, for ``heads`` heads of each of ``batch`` sequences.

    ``kv_heads`` is how many heads of k and v there are (0: ``heads``): head h reads number
    h // (heads / kv_heads). ``value_dim`` is the width of a head of v (0: ``head_dim``).
    """

    batch: int
    queries: int
    keys: int
    heads: int
    head_dim: int
    kv_heads: int = 0
    value_dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "value_dim", self.value_dim or self.head_dim)
        least = min(self.batch, self.queries, self.keys, self.heads, self.head_dim)
        if least < 1 or self.heads % self.kv_heads:
            raise ValueError(f"not the shape of an attention: {self}")

    @property
    def sharing(self) -> int:
        """Heads of q that read the same head of k and v."""
        return self.heads // self.kv_heads

    @property
    def label(self) -> str:
        """All of it, as part of a kernel's name."""
        return (
            f"{self.batch}x{self.queries}x{self.keys}"
            f"_{self.heads}of{self.kv_heads}x{self.head_dim}x{self.value_dim}"
        )


@dataclass(frozen=True)
class Matrix:
    """An operand: ``rows`` x ``width`` of ``element``, f32 or i16 (bf16's bits)."""

    rows: int
    width: int
    element: str = "f32"


@dataclass(frozen=True)
class View:
    """Where q, k or v is: the number of its matrix, and the column of its first head."""

    matrix: int
    column: int = 0


@dataclass(frozen=True)
class Sources:
    """The matrices a kernel reads; token t of sequence b is row b * length + t of its matrix."""

    matrices: tuple[Matrix, ...]
    query: View
    key: View
    value: View

    @classmethod
    def separate(cls, shape: AttentionShape, element: str = "f32") -> Sources:
        """q, k and v in three operands that hold nothing else."""
        queries, keys = shape.batch * shape.queries, shape.batch * shape.keys
        return cls(
            (
                Matrix(queries, shape.heads * shape.head_dim, element),
                Matrix(keys, shape.kv_heads * shape.head_dim, element),
                Matrix(keys, shape.kv_heads * shape.value_dim, element),
            ),
            *(View(0), View(1), View(2)),
        )

    @classmethod
    def joined(cls, shape: AttentionShape, element: str = "f32") -> Sources:
        """q, k and v side by side in one operand."""
        key = shape.heads * shape.head_dim
        value = key + shape.kv_heads * shape.head_dim
        width = value + shape.kv_heads * shape.value_dim
        matrix = Matrix(shape.batch * shape.queries, width, element)
        return cls((matrix,), View(0), View(0, key), View(0, value))

    def check(self, shape: AttentionShape) -> None:
        """Raise `ValueError` where a view reaches beyond its matrix."""
        parts = (
            (self.query, shape.queries, shape.heads * shape.head_dim),
            (self.key, shape.keys, shape.kv_heads * shape.head_dim),
            (self.value, shape.keys, shape.kv_heads * shape.value_dim),
        )
        for view, length, width in parts:
            matrix = self.matrices[view.matrix]
            if matrix.rows < shape.batch * length or matrix.width < view.column + width:
                raise ValueError(f"{view} reaches beyond its matrix {matrix}")

    @property
    def label(self) -> str:
        """A digest of all of it, as part of a kernel's name."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def bits_of(number: float) -> str:
    """A number as part of a name: all bits of its f32."""
    return f"{np.float32(number).view(np.uint32):08x}"
