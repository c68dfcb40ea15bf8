"""A model that computes in PyTorch about as its bundle will: every precision of a recipe.

Each product in the arithmetic of its kernel (`compiler.quantization.fake`), attention and large
tables of words in what the bundle has of them. What the compiler does beyond that is left out: it
smooths, rounds weights one after another, and keeps layers wider where a cosine asks for it; here
weights go to the nearest value of their grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...compiler.compression.matching import products, rule_for
from ...compiler.compression.precisions import bundle_precision
from ...compiler.compression.recipe import Recipe
from ...compiler.quantization.fake import (
    FakeLinear,
    bf16_rows,
    fake_rows,
    fake_weight,
    replaced,
)
from ...compiler.quantization.grids import nearest
from ...compiler.quantization.sites import LEAST, matrix_of
from ...compiler.quantization.tables import LEAST_TABLE

__all__ = ["as_compiled", "precision_in", "precision_told"]


@contextmanager
def as_compiled(model: Any, recipe: Recipe) -> Iterator[None]:
    """Inside the block ``model`` computes in the precisions of ``recipe``; for evaluation."""
    faked = {}
    for name, layer in products(model, shared=True).items():
        precision = precision_in(recipe, name, model)
        # Smaller products stay wide, as the compiler leaves them.
        if precision != "f32" and min(layer.weight.shape) >= LEAST:
            faked[layer] = _fake(matrix_of(layer), precision)
    tables = {
        module: fake_weight(module.weight.detach())
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module.weight.numel() >= LEAST_TABLE
        and _narrow_tables(recipe)
    }
    read = {"f32": None, "f16": _f16}.get(bundle_precision(recipe), bf16_rows)
    with replaced(faked, tables, read=read):
        yield


def precision_in(recipe: Recipe, name: str, model: Any) -> str:
    """The precision that ``recipe`` gives the weight ``name`` of ``model``."""
    rule = rule_for(recipe.precision, name, model)
    return (rule.precision if rule is not None else recipe.default_precision) or "f32"


def precision_told(recipe: Recipe) -> str:
    """What an evaluation of `as_compiled` says of its precision."""
    if not (recipe.precision or recipe.default_precision or _narrow_tables(recipe)):
        return "float32"
    return f"{bundle_precision(recipe)}, simulated"


def _narrow_tables(recipe: Recipe) -> bool:
    asked = recipe.embedding is not None and recipe.embedding.int8
    return asked or (recipe.default_precision or "f32").startswith("int")


def _fake(weight: torch.Tensor, precision: str) -> FakeLinear:
    """A product by ``weight`` [outputs, depth] in a precision that is not f32."""
    if precision == "int8":
        return FakeLinear(fake_weight(weight), None, fake_rows)
    if precision in _BITS:
        return FakeLinear(nearest(weight, _BITS[precision]), None, bf16_rows)
    if precision == "f16":
        return FakeLinear(_f16(weight), None, _f16)
    return FakeLinear(weight, None, bf16_rows)


_BITS = {"int8-weights": 8, "int4-weights": 4}


def _f16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float16).to(x.dtype)
