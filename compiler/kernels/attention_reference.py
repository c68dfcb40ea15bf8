"""What an attention kernel computes, in NumPy's float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .attention_shape import AttentionForm, AttentionShape, Sources, View

__all__ = ["attention_reference", "from_bf16"]

_Array = np.ndarray[Any, Any]

_DROWNING = 1e30


def attention_reference(
    shape: AttentionShape,
    sources: Sources,
    form: AttentionForm,
    matrices: Sequence[_Array],
    bias: _Array | None = None,
) -> _Array:
    """[batch * queries, heads * value_dim]; a row that forbids everything is zero."""

    def heads(view: View, length: int, count: int, width: int) -> _Array:
        matrix = matrices[view.matrix]
        wide = from_bf16(matrix) if matrix.dtype == np.int16 else matrix
        columns = slice(view.column, view.column + count * width)
        found = wide[: shape.batch * length, columns].astype(np.float64)
        return found.reshape(shape.batch, length, count, width).transpose(0, 2, 1, 3)

    query = heads(sources.query, shape.queries, shape.heads, shape.head_dim)
    key = heads(sources.key, shape.keys, shape.kv_heads, shape.head_dim)
    value = heads(sources.value, shape.keys, shape.kv_heads, shape.value_dim)
    key, value = (np.repeat(part, shape.sharing, axis=1) for part in (key, value))
    scores = query @ key.swapaxes(-1, -2) * np.float64(np.float32(form.scale))
    if bias is not None:
        scores = _biased(scores, bias)
    if form.causal:
        scores = np.where(np.tri(shape.queries, shape.keys, dtype=bool), scores, -np.inf)
    lowest = float(np.finfo(np.float32).min)
    maximum = np.maximum(scores.max(axis=-1, keepdims=True), lowest)
    weights = np.exp(scores - maximum)
    total = weights.sum(axis=-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0.0)
    result: _Array = (weights @ value).transpose(0, 2, 1, 3)
    return result.reshape(shape.batch * shape.queries, shape.heads * shape.value_dim)


def _biased(scores: _Array, bias: _Array) -> _Array:
    """The sum; a bias so large that f32 keeps nothing of the score leaves nothing of it here."""
    found = scores + bias
    with np.errstate(over="ignore"):
        narrow = found.astype(np.float32)
    result: _Array = np.where(np.abs(bias) > _DROWNING, narrow, found)
    return result


def from_bf16(bits: _Array) -> _Array:
    """The f32 that bf16's bits stand for."""
    wide = bits.view(np.uint16).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)
