"""The student: a teacher pruned by a recipe, then trained to answer as the teacher does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...compiler.compression.block_sparsity import BlockSparsifier
from ...compiler.compression.costs import Costs, model_costs
from ...compiler.compression.importance import Importance, taylor_importance
from ...compiler.compression.loading import load_compressed
from ...compiler.compression.recipe import Recipe
from ...compiler.compression.saving import save_compressed
from ..data import Row
from ..evaluation import Evaluation, evaluate_model
from ..evaluation_pytorch import model_inputs
from .batches import Batches, Collator
from .fake_quantization import FakeQuantized, quantized_linears
from .keys import digest_of_model, digest_of_rows, key_of
from .losses import task_loss
from .options import TrainingOptions
from .run import TrainingData, loss_kind, pad_id, train
from .shrinking import shrink
from .teacher import load_tokenizer, task_facts
from .workshop import processes, workshop

__all__ = ["FoundStudent", "distil", "evaluate_as_compiled", "importance_of"]

_IMPORTANCE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class FoundStudent:
    """``directory`` is the finished model; ``training`` tells how it came about; ``evaluation``
    is on the development split; ``costs`` at the task's sequence length."""

    directory: Path
    training: dict[str, Any]
    evaluation: Evaluation
    costs: Costs


def distil(
    teacher: Path,
    data: TrainingData,
    dev: tuple[Row, ...],
    recipe: Recipe,
    options: TrainingOptions,
    *,
    names: tuple[str, str] = ("", "dev"),
    what: str = "student",
    progress: Callable[[str], None] | None = None,
) -> FoundStudent:
    """Prune, train and evaluate; kept in the cache by content, and gone on in where it was killed.

    ``teacher`` is a model's directory; ``dev`` is read once, when the student is finished.
    ``names`` are those of the data and its split. Raises `InputError` where the recipe does not
    fit, `NumericsError` where the loss is not finite.
    """
    tell = progress or (lambda _: None)
    length = options.seq_len or data.task.default_seq_len
    key = key_of(
        what="distil",
        teacher=digest_of_model(teacher),
        recipe=recipe.to_json(),
        task=task_facts(data.task),
        train=digest_of_rows(data.train),
        held=digest_of_rows(data.held),
        dev=digest_of_rows(dev),
        options=options.to_json(),
        processes=processes(),
    )
    with workshop(key) as place:
        found = place.result()
        if found is None:
            tell(f"{what}: what matters in the teacher")
            model = load_compressed_or_plain(teacher)
            tokenizer = load_tokenizer(teacher)
            importance = importance_of(model, data, options)
            student, own_tokenizer, vocabulary = shrink(
                model, tokenizer, recipe, importance, data.train
            )
            own = TrainingData(
                task=data.task, tokenizer=own_tokenizer, train=data.train, held=data.held
            )
            linears = FakeQuantized(list(quantized_linears(student, recipe).values()))
            aware = len(linears) > 0 and options.quantization_aware is not False
            sparsifier = (
                BlockSparsifier(student, recipe, method=options.sparsity_method)
                if recipe.sparsity
                else None
            )
            report = train(
                student,
                own,
                options,
                place.checkpoints,
                what=what,
                teacher=model,
                vocabulary=vocabulary,
                quantized=linears if aware else None,
                sparsifier=sparsifier,
                progress=progress,
            )
            tell(f"{what}: evaluating")
            evaluation = evaluate_as_compiled(
                student, own_tokenizer, data, dev, recipe, length, names
            )
            masks = None if sparsifier is None else sparsifier.masks()
            place.finish(
                lambda target: save_compressed(student, own_tokenizer, target, recipe, masks),
                found := {"training": report.to_json(), "evaluation": evaluation.to_json()},
            )
        finished = load_compressed(place.model)
        return FoundStudent(
            directory=place.model,
            training=found["training"],
            evaluation=Evaluation.from_json(found["evaluation"]),
            costs=model_costs(finished, length, recipe),
        )


def importance_of(model: Any, data: TrainingData, options: TrainingOptions) -> Importance:
    """First-order importance of a teacher's parts on some training rows, drawn by the seed."""
    count = min(options.importance_rows, len(data.train))
    rows = random.Random(options.seed).sample(list(data.train), count)
    length = options.seq_len or data.task.default_seq_len
    features = data.task.features(rows, data.tokenizer, length)
    collate = Collator(inputs=model_inputs(model), pad_id=pad_id(model), longest=length)
    kind = loss_kind(data.task)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        lengths = [len(feature["input_ids"]) for feature in features]
        order = list(Batches(lengths, _IMPORTANCE_BATCH, options.seed, bucketing=True))
        for start in range(0, len(order), _IMPORTANCE_BATCH):
            yield collate([features[i] for i in order[start : start + _IMPORTANCE_BATCH]])

    return taylor_importance(
        model, batches(), lambda outputs, batch: task_loss(kind, outputs, batch)
    )


def evaluate_as_compiled(
    model: Any,
    tokenizer: Any,
    data: TrainingData,
    rows: tuple[Row, ...],
    recipe: Recipe,
    length: int,
    names: tuple[str, str],
) -> Evaluation:
    """The metric of a model, with int8 products simulated where the recipe says int8."""
    with FakeQuantized(list(quantized_linears(model, recipe).values())).on():
        return evaluate_model(
            model,
            tokenizer,
            data.task,
            rows,
            seq_len=length,
            data=names[0],
            split=names[1],
        )


def load_compressed_or_plain(directory: Path) -> Any:
    """A live model in float32, whoever wrote its directory."""
    from ...compiler.models import load_model

    return load_model(directory).module
