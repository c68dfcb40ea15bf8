"""A few steps of training for one sub-network, on a copy of its part of the shared weights."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...compiler.compression.block_sparsity import BlockSparsifier
from ...compiler.compression.structure import structure_of
from ...compiler.compression.structured import uniform
from ...compiler.compression.vocabulary import cut_vocabulary
from ..data import Row
from ..evaluation import Evaluation, evaluate_model
from ..space.architecture import Architecture
from ..training.fake_quantization import FakeQuantized, quantized_linears
from ..training.options import TrainingOptions
from ..training.run import TrainingData, train
from ..training.shrinking import former_ids, shrink, texts_of
from .layout import matrices_of
from .rebuilding import observe, rebuilt
from .supernet import Supernet

__all__ = ["adapted", "cut_words", "inherited"]


def inherited(
    supernet: Supernet, architecture: Architecture, tokenizer: Any, rows: Sequence[Row]
) -> tuple[Any, Any, torch.Tensor | None]:
    """(a model of its own with a sub-network's weights, dense; its tokenizer; the teacher's ids
    of its tokens, None where the vocabulary is the teacher's).

    ``rows`` are the corpus by which tokens are chosen.
    """
    recipe = dataclasses.replace(
        architecture.recipe(supernet.model.config), layers=tuple(supernet.chosen(architecture))
    )
    # Units stand in their order, so the first ones are the most important.
    first = uniform(structure_of(supernet.model))
    return shrink(supernet.model, tokenizer, recipe, first, rows)


def adapted(
    supernet: Supernet,
    teacher: Any,
    architecture: Architecture,
    data: TrainingData,
    options: TrainingOptions,
    steps: int,
    batches: Sequence[Mapping[str, torch.Tensor]],
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """A sub-network after ``steps`` of distillation from ``teacher``, on the rows held out.

    It reads as many rows as that takes, drawn by the seed. Blocks go before the first step, which
    begins with what is rebuilt of them by the inputs in ``batches``, and int8 is simulated in all
    steps. ``options`` say the rest. Nothing is kept.
    """
    model, tokenizer, vocabulary = inherited(supernet, architecture, data.tokenizer, data.train)
    recipe = architecture.recipe(supernet.model.config)
    count = min(len(data.train), steps * options.batch_size)
    rows = random.Random(options.seed).sample(list(data.train), count)
    own = TrainingData(task=data.task, tokenizer=tokenizer, train=rows, held=data.held)
    sparsifier = BlockSparsifier(model, recipe) if recipe.sparsity else None
    if sparsifier is not None:
        _rebuild(model, architecture, batches, bf16=bool(options.bf16))
        sparsifier.step(1.0)
    linears = FakeQuantized(list(quantized_linears(model, recipe).values()))
    short = options.replace(
        epochs=steps / -(-count // options.batch_size),
        seq_len=architecture.seq_len,
        evaluations_per_epoch=1,
        patience=0,
        sparse_at=0.0,
        quantize_from=0.0,
        # What would be compared through a new projection: a few steps do not teach it.
        hidden_weight=0.0,
        relation_weight=0.0,
        layer_map=None,
    )
    with tempfile.TemporaryDirectory(prefix="canao-adaptation-") as folder:
        train(
            model,
            own,
            short,
            Path(folder),
            what="short training",
            teacher=teacher,
            vocabulary=vocabulary,
            quantized=linears if len(linears) else None,
            sparsifier=sparsifier,
            progress=progress,
        )
    with linears.on():
        return evaluate_model(
            model,
            tokenizer,
            data.task,
            data.held,
            seq_len=architecture.seq_len,
            bf16=bool(options.bf16),
        )


def _rebuild(
    model: Any,
    architecture: Architecture,
    batches: Sequence[Mapping[str, torch.Tensor]],
    *,
    bf16: bool,
) -> None:
    """Leave the blocks that stay, with what `rebuilding` saves of the others."""
    sparse = [
        (linear, shape.form(kind).density)
        for layer, shape in zip(structure_of(model).layers, architecture.layers, strict=True)
        for kind, linear in matrices_of(layer)
        if shape.form(kind).density < 1
    ]
    moments = observe(model, [linear for linear, _ in sparse], batches, bf16=bf16)
    for (linear, density), seen in zip(sparse, moments, strict=True):
        weight, bias = rebuilt(linear.weight, linear.bias, seen, architecture.block, density)
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(bias)


def cut_words(
    model: Any, tokenizer: Any, rows: Sequence[Row], size: int
) -> tuple[Any, torch.Tensor]:
    """(a tokenizer of ``size`` tokens, the rows of the model's table that they have)."""
    _, own = cut_vocabulary(model, tokenizer, texts_of(rows), size)
    return own, former_ids(tokenizer, own, size)
