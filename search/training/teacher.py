"""The teacher: a model fine-tuned for the task, once for the same model, data and options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.checkpoint import locate
from ...compiler.compression.recipe import Recipe
from ...compiler.compression.saving import save_compressed
from ...errors import InputError
from ..tasks import Task
from .heads import has_head, with_new_head
from .keys import digest_of_model, digest_of_rows, key_of
from .options import TrainingOptions
from .run import TrainingData, train
from .workshop import processes, workshop

__all__ = ["FoundTeacher", "find_teacher", "finetune"]

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


@dataclass(frozen=True, kw_only=True)
class FoundTeacher:
    """``directory`` is a model with the task's head; ``training`` tells of its fine-tuning, None
    where it came with the head."""

    directory: Path
    training: dict[str, Any] | None


def find_teacher(
    model: str,
    data: TrainingData,
    options: TrainingOptions,
    progress: Callable[[str], None] | None = None,
) -> FoundTeacher:
    """``model`` itself where it has a trained head for the task, else what `finetune` makes."""
    if has_head(model, data.task):
        _, directory = locate(model)
        assert directory is not None
        return FoundTeacher(directory=directory, training=None)
    return finetune(model, data, options.for_teacher(), progress)


def finetune(
    model: str,
    data: TrainingData,
    options: TrainingOptions,
    progress: Callable[[str], None] | None = None,
) -> FoundTeacher:
    """``model`` with a new head, trained on the labels; kept in the cache by content.

    The same model, rows, task and options are trained once; a training that was killed goes on
    where its last checkpoint ends. Raises `InputError` for a model without a tokenizer.
    """
    location, directory = locate(model)
    if directory is None:
        raise InputError(f"{model} has no directory with a tokenizer: give one that has.")
    key = key_of(
        what="finetune",
        model=digest_of_model(directory),
        location=Path(location).name if Path(location).is_file() else "",
        task=task_facts(data.task),
        train=digest_of_rows(data.train),
        held=digest_of_rows(data.held),
        options=options.to_json(),
        processes=processes(),
    )
    with workshop(key) as place:
        found = place.result()
        if found is None:
            module = with_new_head(model, data.task, options.seed)
            report = train(
                module, data, options, place.checkpoints, what="teacher", progress=progress
            )
            found = report.to_json()
            place.finish(
                lambda target: save_compressed(
                    module, load_tokenizer(directory), target, Recipe()
                ),
                found,
            )
        return FoundTeacher(directory=place.model, training=found)


def load_tokenizer(directory: Path) -> Any:
    """The fast tokenizer of a model's directory; `InputError` where there is none."""
    from transformers import AutoTokenizer

    try:
        # Without any vocabulary, transformers makes a tokenizer that knows no word.
        if not any(True for name in _VOCABULARIES for _ in directory.glob(name)):
            raise FileNotFoundError("it has no vocabulary")
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"{directory} has no tokenizer that can be read: put its tokenizer.json there."
        ) from error


def task_facts(task: Task) -> dict[str, Any]:
    """What of a task decides a training."""
    lower = {"lower_is_better": True} if task.lower_is_better else {}
    return {
        **lower,
        "kind": str(task.kind),
        "head": task.head,
        "labels": task.num_labels,
        "names": list(task.label_names),
        "primary": task.primary,
    }
