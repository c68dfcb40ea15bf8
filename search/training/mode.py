"""A model as training wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from ...compiler.compression.structure import structure_of
from .options import TrainingOptions

__all__ = ["training_mode"]


@contextlib.contextmanager
def training_mode(model: Any, options: TrainingOptions, bf16: bool) -> Iterator[None]:
    """``model`` as training wants it; afterwards as it was.

    Dropout as asked and, if asked, tables of embeddings that stay; in bf16 attention by plain
    products, since on CPUs the gradients of the fused one take much longer.
    """
    drops = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    attention = {
        id(part)
        for layer in structure_of(model).layers
        for part in layer.attention.modules()
        if isinstance(part, nn.Dropout)
    }
    tables = [p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()]
    fixed = [p for p in tables if p.requires_grad and options.tables_fixed]
    rates = [part.p for part in drops]
    attention_kind = model.config._attn_implementation
    for part in drops:
        part.p = options.attention_dropout if id(part) in attention else options.dropout
    for parameter in fixed:
        parameter.requires_grad_(False)
    if bf16:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for part, rate in zip(drops, rates, strict=True):
            part.p = rate
        for parameter in fixed:
            parameter.requires_grad_(True)
        if bf16:
            model.set_attn_implementation(attention_kind)
        model.eval()
