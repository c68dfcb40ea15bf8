"""The student: a teacher pruned by a recipe, then trained to answer as the teacher does."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...compiler.compression.block_sparsity import BlockSparsifier
from ...compiler.compression.costs import Costs, model_costs
from ...compiler.compression.importance import (
    Importance,
    magnitude_importance,
    taylor_importance,
)
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
from .simulation import as_compiled, precision_told
from .teacher import load_tokenizer, task_facts
from .workshop import processes, workshop

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FoundStudent", "distil", "evaluate_as_compiled", "importance_of"]

_IMPORTANCE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class FoundStudent:
    """``directory`` is the finished model; ``training`` tells how it came about; ``evaluation``
    is on the development split; ``costs`` at the task's sequence length; ``scores`` are what its
    metrics are made of, float64 [rows, columns], where they were asked for."""

    directory: Path
    training: dict[str, Any]
    evaluation: Evaluation
    costs: Costs
    scores: NDArray[Any] | None = None


def distil(
    teacher: Path,
    data: TrainingData,
    dev: tuple[Row, ...],
    recipe: Recipe,
    options: TrainingOptions,
    *,
    names: tuple[str, str] = ("", "dev"),
    what: str = "student",
    scored: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FoundStudent:
    """Prune, train and evaluate; kept in the cache by content, and gone on in where it was killed.

    ``teacher`` is a model's directory; ``dev`` is read once, when the student is finished.
    ``names`` are those of the data and its split; ``scored`` keeps each row's scores. Raises
    `InputError` where the recipe does not fit, `NumericsError` where the loss is not finite.
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
        **({"reordered": "first order"} if _weighed(recipe, options) else {}),
    )
    judge = functools.partial(
        evaluate_as_compiled, data=data, rows=dev, recipe=recipe, length=length, names=names
    )
    with workshop(key) as place:
        found = place.result()
        if found is None:
            tell(f"{what}: what matters in the teacher")
            model = load_compressed_or_plain(teacher)
            tokenizer = load_tokenizer(teacher)
            importance = importance_of(model, data, options)

            def weigh(smaller: Any, its_tokenizer: Any) -> Importance:
                known = dataclasses.replace(data, tokenizer=its_tokenizer)
                return importance_of(smaller, known, options, weights=True)

            student, own_tokenizer, vocabulary = shrink(
                *(model, tokenizer, recipe, importance, data.train),
                weigh=weigh if _weighed(recipe, options) else None,
            )
            own = dataclasses.replace(data, tokenizer=own_tokenizer)
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
            judged = _judged(judge, student, own_tokenizer, scored)
            masks = None if sparsifier is None else sparsifier.masks()
            place.finish(
                lambda target: save_compressed(student, own_tokenizer, target, recipe, masks),
                found := {"training": report.to_json(), **judged},
            )
        finished = load_compressed(place.model)
        other = found["evaluation"]["precision"] != precision_told(recipe)
        if other or (scored and "scores" not in found):
            tell(f"{what}: evaluating")
            own_tokenizer = load_tokenizer(place.model)
            found |= _judged(judge, finished, own_tokenizer, scored)
            place.amend(found)
        return FoundStudent(
            directory=place.model,
            training=found["training"],
            evaluation=Evaluation.from_json(found["evaluation"]),
            costs=model_costs(finished, length, recipe),
            scores=np.array(found["scores"], np.float64) if scored else None,
        )


def _judged(
    judge: Callable[..., Evaluation], model: Any, tokenizer: Any, scored: bool
) -> dict[str, Any]:
    """What ``judge`` finds and, if ``scored``, each row's scores: JSON values to keep."""
    scores: list[NDArray[Any]] = []
    found = judge(model, tokenizer, scored=scores.append)
    kept = {"scores": scores[0].tolist()} if scored else {}
    return {"evaluation": found.to_json(), **kept}


def _weighed(recipe: Recipe, options: TrainingOptions) -> bool:
    """Whether units are reordered by first-order scores of weights. Blocks that movement chooses
    are no matter of the squares that the weights have before training."""
    movement = options.sparsity_method == "movement"
    return bool(recipe.sparsity) and movement and options.importance_rows > 0


def importance_of(
    model: Any, data: TrainingData, options: TrainingOptions, *, weights: bool = False
) -> Importance:
    """First-order importance of a model's parts on some training rows, drawn by the seed.

    Magnitudes where ``importance_rows`` is 0, or where the gradients are nothing somewhere, as
    those of a model that makes no error are. ``weights`` adds a score for each weight.
    """
    if not options.importance_rows:
        return magnitude_importance(model)
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

    found = taylor_importance(
        model,
        batches(),
        lambda outputs, batch: task_loss(kind, outputs, batch),
        weights=weights,
    )
    telling = all(bool((one > 0).any()) for one in (*found.heads, *found.ffn, found.hidden))
    return found if telling else magnitude_importance(model)


def evaluate_as_compiled(
    model: Any,
    tokenizer: Any,
    data: TrainingData,
    rows: tuple[Row, ...],
    recipe: Recipe,
    length: int,
    names: tuple[str, str],
    scored: Callable[[NDArray[Any]], object] | None = None,
) -> Evaluation:
    """The metric of a model that computes in the precisions of ``recipe`` (`as_compiled`)."""
    with as_compiled(model, recipe):
        found = evaluate_model(
            model,
            tokenizer,
            data.task,
            rows,
            seq_len=length,
            data=names[0],
            split=names[1],
            scored=scored,
        )
    return dataclasses.replace(found, precision=precision_told(recipe))


def load_compressed_or_plain(directory: Path) -> Any:
    """A live model in float32, whoever wrote its directory."""
    from ...compiler.models import load_model

    return load_model(directory).module
