"""All input of a compression, checked before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..compiler.checkpoint import locate, own_head, read_config
from ..compiler.compression.block_sparsity import BlockSparsifier
from ..compiler.compression.costs import model_costs
from ..compiler.compression.importance import magnitude_importance
from ..compiler.compression.manifest import MANIFEST
from ..compiler.compression.recipe import Recipe
from ..compiler.compression.structure import structure_of
from ..compiler.compression.validation import check_model
from ..compiler.models import load_model
from ..errors import InputError
from .data import Split, load_split
from .data.kinds import unlike
from .data.labels import label_values
from .dense import dense_of_equal_flops
from .tasks import Task, model_label_names, task_for
from .training.heads import has_head, with_new_head
from .training.options import TrainingOptions
from .training.run import TrainingData
from .training.shrinking import shrink
from .training.student import matched_layers
from .training.teacher import load_tokenizer

__all__ = [
    "check_output",
    "read_data",
    "read_options",
    "read_recipe",
    "read_tokenizer",
    "rehearse",
]


def read_recipe(recipe: Any) -> Recipe:
    """A recipe from a value, plain JSON values or a file."""
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.from_json(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def read_options(options: Any) -> TrainingOptions:
    """Training options from a value, plain JSON values or a file; None: the defaults."""
    if options is None:
        return TrainingOptions()
    if isinstance(options, TrainingOptions):
        return options
    if isinstance(options, Mapping):
        return TrainingOptions.from_json(options)
    return TrainingOptions.load(options)


def check_output(place: Path) -> Path:
    """Refuse now what could not be written after an hour."""
    taken = place.is_file() or (place.is_dir() and any(place.iterdir()))
    if taken and not (place / MANIFEST).is_file():
        raise InputError(f"{place} is there and is no compressed model: name another directory.")
    parent = next(p for p in place.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{parent} cannot be written to: name another output directory.")
    return place


def read_data(
    model: str, data: str, dev: str, split: str, metric: str | None
) -> tuple[Task, Split, Split]:
    """The task, what is trained on and what is evaluated on.

    The classes are those of the training split; `InputError` for one that no row of it shows, and
    for a row of the other split with a class beyond them.
    """
    names: tuple[str, ...] = ()
    head = None
    location, _ = locate(model)
    config = read_config(location, model)
    if own_head(config) in ("masked-lm", "causal-lm"):
        head = own_head(config)
    train = load_split(data, "train")
    own = task_for(train, metric=metric)
    if own.kind == "language_modelling":
        own = task_for(train, head=head, metric=metric)
    if own_head(config) != own.head or config.num_labels != train.num_labels:
        _refuse_holes(train)
    if has_head(model, own):
        names = model_label_names(config.to_dict())
        train = load_split(data, "train", label_names=names)
    judged = load_split(dev, split, label_names=names or train.label_names)
    if judged.kind is not train.kind:
        first, other = train.rows[0]["place"], judged.rows[0]["place"]
        raise unlike(other, judged.kind, first, train.kind)
    for value, place in label_values(judged.kind, judged.rows):
        if value >= train.num_labels:
            raise InputError(
                f"{place}: the label {value} is out of range: what is trained on has "
                f"{train.num_labels} classes, counted from 0."
            )
    task = task_for(
        train,
        head=head if own.kind == "language_modelling" else None,
        num_labels=train.num_labels,
        label_names=names,
        metric=metric,
    )
    return task, train, judged


def _refuse_holes(train: Split) -> None:
    """Refuse numbers of classes that skip some: a mistyped one would widen the head."""
    if train.label_names:
        return
    seen = {value for value, _ in label_values(train.kind, train.rows)}
    absent = next(number for number in range(len(seen) + 1) if number not in seen)
    for value, place in label_values(train.kind, train.rows):
        if value > absent:
            raise InputError(
                f"{place}: the label {value} is out of range: no row to train on has the label "
                f"{absent}, and classes count from 0 without a gap."
            )


def read_tokenizer(model: str) -> Any:
    """The tokenizer beside a model; `InputError` where there is none."""
    directory = locate(model)[1]
    if directory is None:
        raise InputError(f"{model} has no directory with a tokenizer: give one that has.")
    return load_tokenizer(directory)


def rehearse(
    model: str,
    teacher: bool,
    data: TrainingData,
    recipe: Recipe,
    options: TrainingOptions,
    *,
    dense: bool = False,
) -> None:
    """Do to the model at once, by magnitudes, what will be done to the teacher: it would refuse
    now what it would refuse after an hour."""
    location, _ = locate(model)
    recipe.validate(read_config(location, model))
    if teacher and not has_head(model, data.task):
        raise InputError(
            f"{model} has no trained head {data.task.head!r}, so it cannot teach: fine-tune it, "
            "or leave it out and the model will be fine-tuned."
        )
    source = load_model(model)
    longest = source.max_length
    length = options.seq_len or data.task.default_seq_len
    if longest is not None and length > longest:
        raise InputError(f"{model} takes at most {longest} tokens, not {length}: ask for fewer.")
    headed = has_head(model, data.task)
    whole = source.module if headed else with_new_head(model, data.task, options.seed)
    scores = magnitude_importance(whole)
    smaller, _, _ = shrink(whole, data.tokenizer, recipe, scores, data.train)
    if recipe.sparsity:
        sparsifier = BlockSparsifier(smaller, recipe)
        if dense:
            sparsifier.step(1.0)
            flops = model_costs(smaller, length, recipe).flops
            check_model(dense_of_equal_flops(whole, recipe, flops, length), whole)
    layers = [len(structure_of(one).layers) for one in (smaller, whole)]
    matched_layers(layers[0], layers[1], options.layer_map)
