"""What a model costs: numbers stored, multiplications, bytes in a bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ...errors import InputError
from ..quantization.sites import LEAST
from ..quantization.tables import LEAST_TABLE
from .blocks import block_count, block_sums
from .families import DECODERS
from .matching import matrices, products, rule_for
from .recipe import Recipe
from .structure import structure_of

__all__ = ["Costs", "model_costs"]

_FINEST = (4, 16)
"""Blocks that are looked for where no rule names any."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """``params``: numbers that are stored, zero blocks left out. ``flops``: 2 for each
    multiplication of one text through linear layers and attention, zero blocks left out.
    ``bytes``: weights in a bundle. Whether a target's kernels leave zero blocks out depends on
    what is faster there (`kernels.sparse_choice`)."""

    params: int
    flops: int
    bytes: int

    def to_json(self) -> dict[str, int]:
        """Plain JSON values."""
        return {"params": self.params, "flops": self.flops, "bytes": self.bytes}


def model_costs(model: Any, seq_len: int, recipe: Recipe | None = None) -> Costs:
    """Costs of one text of ``seq_len`` tokens, at the precisions of ``recipe`` (None: f32).

    Nothing is computed: shapes are followed through the model. Causal attention counts in full,
    as it is computed. Raises `InputError` where the model has no positions for ``seq_len``.
    """
    recipe = recipe or Recipe()
    densities = {id(w): _density(model, n, w, recipe) for n, w in matrices(model).items()}
    flops = 0.0
    for module, rows in _reached(model, seq_len):
        flops += 2 * rows * module.weight.numel() * densities.get(id(module.weight), 1.0)
    for layer in structure_of(model).layers:
        flops += 4 * layer.heads * layer.head_size * seq_len**2
    params = sum(p.numel() * densities.get(id(p), 1.0) for p in model.parameters())
    return Costs(params=round(params), flops=round(flops), bytes=_bytes(model, recipe))


def _density(model: Any, name: str, weight: torch.Tensor, recipe: Recipe) -> float:
    if weight.device.type == "meta":
        return 1.0
    rule = rule_for(recipe.sparsity, name, model)
    alive = (weight.detach() != 0).float()
    return float((block_sums(alive, rule.block if rule else _FINEST) > 0).float().mean())


def _reached(model: Any, seq_len: int) -> list[tuple[Any, int]]:
    """Every product by a weight that a text passes, and how many rows it has there."""
    found: list[tuple[Any, int]] = []
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    empty = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    # Any tokens would do; they have no values here.
    ids = torch.zeros((1, seq_len), dtype=torch.int64, device="meta")
    inputs: dict[str, Any] = {"input_ids": ids, "return_dict": True}
    if model.config.model_type in DECODERS:
        # A finished mask: else one would be made from values.
        mask = torch.zeros((1, 1, seq_len, seq_len), device="meta")
        inputs |= {"use_cache": False, "attention_mask": mask}
    with _counted(model, found), torch.no_grad():
        try:
            torch.func.functional_call(model, empty, args=(), kwargs=inputs)
        except (IndexError, RuntimeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{type(model).__name__} cannot read {seq_len} tokens: {reason}"
            ) from error
    return found


@contextmanager
def _counted(model: Any, found: list[tuple[Any, int]]) -> Iterator[None]:
    weights: dict[Any, Any] = {
        m: m.weight for m in model.modules() if isinstance(m, (nn.Linear, Conv1D))
    }

    def note(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        rows = arguments[0].numel() // arguments[0].shape[-1]
        found.append((_Product(weights[module]), rows))

    hooks = [module.register_forward_pre_hook(note) for module in weights]
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, eq=False)
class _Product:
    weight: nn.Parameter


def _bytes(model: Any, recipe: Recipe) -> int:
    dense = matrices(model)
    # A layer whose weight is a table of words too is counted as a table.
    layers = {
        name: layer
        for name, layer in products(model).items()
        if name in dense or isinstance(layer, Conv1D)
    }
    known = {id(layer.weight) for layer in layers.values()}
    tables = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Embedding)}
    asked = recipe.embedding is not None and recipe.embedding.int8
    narrow = asked or (recipe.default_precision or "f32").startswith("int")
    total = 0.0
    for name, layer in layers.items():
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        rule = rule_for(recipe.precision, name, model)
        precision = rule.precision if rule else recipe.default_precision or "f32"
        total += _matrix_bytes(model, name, weight, precision, recipe)
    for parameter in model.parameters():
        if id(parameter) in known:
            continue
        if narrow and id(parameter) in tables and parameter.numel() >= LEAST_TABLE:
            total += parameter.numel() + 4 * parameter.shape[0]
        else:
            total += 4 * parameter.numel()
    return round(total)


def _matrix_bytes(
    model: Any, name: str, weight: torch.Tensor, precision: str, recipe: Recipe
) -> float:
    outputs, inputs = weight.shape
    count = outputs * inputs
    if min(outputs, inputs) < LEAST:
        return 4 * count
    if precision == "int4-weights":  # a scale of 2 bytes for each output and 32 inputs
        return count / 2 + 2 * outputs * math.ceil(inputs / 32)
    if precision == "int8-weights":  # a scale for each output
        return count + 4 * outputs
    density = _density(model, name, weight, recipe)
    size = count * density * {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}[precision]
    if precision == "int8":  # a scale for each output, and the sum of its codes
        size += 8 * outputs
    if density < 1:
        rule = rule_for(recipe.sparsity, name, model)
        panels, groups = block_count((outputs, inputs), rule.block if rule else _FINEST)
        size += 4 * (math.ceil(panels * groups * density) + panels + 1)
    return size
