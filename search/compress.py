"""``canao.compress``: a model and a recipe in, a smaller model that answers as it does out.

Validate all input; find or fine-tune the teacher; measure what matters in it; prune; distil, with
sparsity and simulated int8 where the recipe asks for them; evaluate both on the development
split, once; write the directory. What takes long is kept in the cache, so a call that was killed
goes on, and gives what it would have given.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..compiler.compression.costs import model_costs
from ..compiler.compression.loading import load_compressed, load_masks
from ..compiler.compression.recipe import Recipe
from ..compiler.compression.saving import save_compressed
from ..compiler.models import load_model
from ..runtime_harness.bundle.atomic import replace_file
from .compress_inputs import (
    check_output,
    read_data,
    read_options,
    read_recipe,
    read_tokenizer,
    rehearse,
)
from .compress_result import CompressionResult, Difference, ModelFacts
from .data import Split
from .dense import dense_of_equal_flops, unequal
from .evaluation import Evaluation
from .metrics import paired_bootstrap
from .tasks import Task
from .training.distillation import FoundStudent, distil, evaluate_as_compiled
from .training.holdout import hold_out
from .training.keys import digest_of_model, digest_of_rows, key_of
from .training.options import TrainingOptions
from .training.run import TrainingData
from .training.teacher import find_teacher, load_tokenizer, task_facts
from .training.trainer import bf16_in_hardware
from .training.workshop import agreed, is_first, together, workshop

__all__ = ["compress"]


def compress(
    model: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str],
    output: str | os.PathLike[str],
    teacher: str | os.PathLike[str] | None = None,
    options: TrainingOptions | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    dev: str | os.PathLike[str] | None = None,
    split: str = "dev",
    metric: str | None = None,
    dense: bool = True,
    progress: Callable[[str], None] | None = None,
) -> CompressionResult:
    """Compress ``model`` for the task of ``data`` and write it to the directory ``output``.

    ``model``: what ``load_model`` takes. Where it has no trained head for the task it is
    fine-tuned first, unless ``teacher`` names a directory that is: then the student is cut from
    that. ``data`` is as for ``load_split``: its ``train`` split is trained on (a tenth of it only
    chooses checkpoints), its ``split`` is evaluated on, once, at the end; ``dev`` is other data
    for that. ``recipe`` and ``options`` are values or files. ``dense`` trains, beside a
    block-sparse model, a dense one of about its FLOPs in the same way, which takes as long again.

    Raises `InputError` for whatever is wrong with the call, before anything is trained;
    `NumericsError` where the training diverges (its last good checkpoint stays);
    `CanaoError` where another process is at the same training.
    """
    began = time.monotonic()
    progress = progress if is_first() else None  # of several processes one tells
    tell = progress or (lambda _: None)
    tell("reading the data")
    wanted = read_recipe(recipe)
    place = check_output(Path(output))
    chosen = read_options(options)
    source = os.fspath(teacher if teacher is not None else model)
    task, train, judged = read_data(source, os.fspath(data), os.fspath(dev or data), split, metric)
    length = chosen.seq_len or task.default_seq_len
    chosen = chosen.replace(
        seq_len=length, bf16=bf16_in_hardware() if chosen.bf16 is None else chosen.bf16
    )
    rows, held = hold_out(train, chosen.holdout, chosen.seed)
    given = TrainingData(
        task=task, tokenizer=read_tokenizer(source), train=tuple(rows), held=tuple(held)
    )
    rehearse(source, teacher is not None, given, wanted, chosen, dense=dense)
    found = find_teacher(source, given, chosen, progress)
    names = (judged.name, judged.split)
    before = _before(found.directory, given, judged, length, tell)
    rival = dense and bool(wanted.sparsity)
    student = distil(
        *(found.directory, given, judged.rows, wanted, chosen),
        names=names,
        scored=rival,
        progress=progress,
    )
    after = ModelFacts.of(student.costs, student.evaluation)
    training: dict[str, Any] = {"teacher": found.training, "student": student.training}
    beside, beside_at, difference, doubts = None, None, None, _doubts(student.evaluation)
    if rival:
        equal = dense_of_equal_flops(
            load_model(found.directory).module, wanted, after.flops, length
        )
        other = distil(
            *(found.directory, given, judged.rows, equal, _mapped_for(equal, chosen)),
            names=names,
            what="dense student",
            scored=True,
            progress=progress,
        )
        beside, beside_at = ModelFacts.of(other.costs, other.evaluation), other.directory
        training["dense"] = other.training
        difference = _difference(task, student, other)
        doubts = (*doubts, *filter(None, [unequal(beside.flops, after.flops)]))
    if is_first():
        save_compressed(
            load_compressed(student.directory),
            load_tokenizer(student.directory),
            place,
            wanted,
            load_masks(student.directory) or None,
        )
    together()
    return CompressionResult(
        before=before,
        after=after,
        dense=beside,
        difference=difference,
        output=place,
        teacher=found.directory,
        dense_output=beside_at,
        data=judged.name,
        seq_len=length,
        recipe=wanted.to_json(),
        options=chosen.to_json(),
        training=training,
        warnings=(*doubts, *_no_gain(before, after)),
        seconds=round(time.monotonic() - began, 3),
    )


def _mapped_for(recipe: Recipe, options: TrainingOptions) -> TrainingOptions:
    """A map of layers says nothing of a student that has fewer: it is spread evenly."""
    layers = len(recipe.layers) if isinstance(recipe.layers, tuple) else recipe.layers
    if options.layer_map is None or layers in (None, len(options.layer_map)):
        return options
    return options.replace(layer_map=None)


def _difference(task: Task, ours: FoundStudent, other: FoundStudent) -> Difference | None:
    """Between the metrics of two students on the same rows."""
    one, two = ours.scores, other.scores
    if one is None or two is None or len(one) != len(two):
        return None
    low, high = paired_bootstrap(lambda some: task.summarise(some)[task.primary], one, two)
    value = ours.evaluation.value - other.evaluation.value
    return Difference(value=value, interval=(low, high))


def _before(
    directory: Path,
    data: TrainingData,
    judged: Split,
    length: int,
    tell: Callable[[str], None],
) -> ModelFacts:
    """The teacher's facts; its evaluation is kept, so that the split is read once."""
    module = load_model(directory).module
    key = key_of(
        what="evaluate",
        model=digest_of_model(directory),
        task=task_facts(data.task),
        rows=digest_of_rows(judged.rows),
        length=length,
    )
    with workshop(key) as place:
        kept = place.folder / "evaluation.json"
        found = agreed(_kept(kept))
        if found is None:
            tell("evaluating the teacher")
            found = evaluate_as_compiled(
                *(module, data.tokenizer, data, judged.rows, Recipe(), length),
                (judged.name, judged.split),
            )
            if is_first():
                replace_file(kept, json.dumps(found.to_json()).encode())
            together()
    return ModelFacts.of(model_costs(module, length), found)


def _kept(file: Path) -> Evaluation | None:
    try:
        return Evaluation.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _doubts(evaluation: Evaluation) -> tuple[str, ...]:
    if not evaluation.truncated:
        return ()
    return (
        f"{evaluation.truncated} of the texts evaluated on were longer than "
        f"{evaluation.seq_len} tokens and cut.",
    )


def _no_gain(before: ModelFacts, after: ModelFacts) -> tuple[str, ...]:
    if after.flops < before.flops or after.bytes < before.bytes:
        return ()
    return ("The recipe makes the model neither smaller nor cheaper.",)
