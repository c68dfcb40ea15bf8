"""What an attention kernel computes, and from where: its static parameters.

q, k and v are row-major matrices with one row a token, in one operand or in several; a `View`
says which operand a part is in and where its columns begin. So the result of one product for
q, k and v together is passed as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

__all__ = ["AttentionForm", "AttentionShape", "Matrix", "Sources", "View"]


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


@dataclass(frozen=True)
class AttentionForm:
    """Everything but shape and sources.

    ``bias``: the shape of an f32 operand added to the scaled scores, [batch or 1, heads or 1,
    queries or 1, keys]; -inf forbids. ``causal``: query i sees keys 0 to i. ``output``: f32 or
    bf16 (as i16), in ``output_rows`` x ``output_stride`` (0: as many as there are): columns
    beyond the heads are zeros, rows beyond the queries stay unwritten. ``native_bf16`` as for
    `round_bf16`; an engine for bf16 knows by itself.
    """

    scale: float
    bias: tuple[int, int, int, int] | None = None
    causal: bool = False
    output: str = "f32"
    output_rows: int = 0
    output_stride: int = 0
    native_bf16: bool = False

    def check(self, shape: AttentionShape) -> None:
        """Raise `ValueError` for a form that does not go with ``shape``."""
        full = (shape.batch, shape.heads, shape.queries)
        if self.bias is not None and (
            self.bias[3] != shape.keys
            or any(n not in (1, m) for n, m in zip(self.bias[:3], full, strict=True))
        ):
            raise ValueError(f"a bias of {self.bias} does not go with {shape}")
        if self.output not in ("f32", "bf16"):
            raise ValueError(f"no output of {self.output}")
        rows, width = shape.batch * shape.queries, shape.heads * shape.value_dim
        if (self.output_rows or rows) < rows or (self.output_stride or width) < width:
            raise ValueError(f"no room for {shape} in {self.output_rows}x{self.output_stride}")

    @property
    def label(self) -> str:
        """All of it but the output's shape, as part of a kernel's name."""
        bias = "x".join(map(str, self.bias)) if self.bias else "nobias"
        parts = [f"{np.float32(self.scale).view(np.uint32):08x}", bias]
        parts += ["causal"] if self.causal else []
        parts += ["native"] if self.native_bf16 else []
        return "_".join([*parts, self.output])
