"""A pre-trained model with the head that a task needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...compiler.checkpoint import HEADS, locate, own_head, read_config
from ...compiler.compression.manifest import MANIFEST
from ...errors import InputError
from ..tasks import Task

__all__ = ["has_head", "with_new_head"]

_POOLER = "pooler."


def has_head(model: str, task: Task) -> bool:
    """Whether a model was saved with the head that the task needs.

    Raises `InputError` where it has that head for another number of classes.
    """
    location, directory = locate(model)
    config = read_config(location, model)
    trained = directory is not None and any(directory.glob("*.safetensors"))
    if own_head(config) != task.head or not trained or Path(location).is_file():
        return False
    classes = task.head in ("sequence-classification", "token-classification")
    if classes and config.num_labels != task.num_labels:
        raise InputError(
            f"{model} has a head for {config.num_labels} label(s), but the data has "
            f"{task.num_labels}: give the model that it was fine-tuned from, or other data."
        )
    return True


def with_new_head(model: str, task: Task, seed: int) -> Any:
    """The pre-trained encoder or decoder with a random head for ``task``, drawn by ``seed``.

    A config.json alone gives random weights throughout. Raises `InputError` where the checkpoint
    lacks more than the head, or where there is no such head for the family.
    """
    import transformers

    from ...compiler.checkpoint import quiet_transformers

    location, directory = locate(model)
    if directory is not None and (directory / MANIFEST).is_file():
        raise InputError(
            f"{model} was compressed by canao for another head: give the model that it came from."
        )
    config = read_config(location, model)
    if task.head in ("sequence-classification", "token-classification"):
        config.num_labels = task.num_labels
        if len(task.label_names) == task.num_labels > 1:
            config.id2label = dict(enumerate(task.label_names))
            config.label2id = {name: number for number, name in enumerate(task.label_names)}
    if task.kind == "regression":
        config.problem_type = "regression"
    auto = getattr(transformers, HEADS[task.head][0])
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if Path(location).is_file():
                return auto.from_config(config).float()
            found, info = auto.from_pretrained(
                location,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{model} cannot get the head {task.head}: {reason}.") from error
    prefix = f"{found.base_model_prefix}."
    absent = [key for key in info["missing_keys"] if key.startswith(prefix) and _POOLER not in key]
    if absent:
        raise InputError(
            f"{model} lacks trained weights ({sorted(absent)[0]}): it is no {config.model_type} "
            "that was pre-trained."
        )
    return found
