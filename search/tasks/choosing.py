"""Which task a split is, for a model with a certain head, and by which metric it is judged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import InputError
from ..data import Split, TaskKind
from .base import Task
from .classification import Classification
from .language_modelling import CausalModelling, MaskedModelling
from .question_answering import QuestionAnswering
from .regression import Regression, Similarity
from .token_classification import TokenClassification

__all__ = ["model_label_names", "task_for"]

_UNNAMED = re.compile(r"LABEL_\d+")

_USUAL: dict[TaskKind, type[Task]] = {
    TaskKind.CLASSIFICATION: Classification,
    TaskKind.PAIR_CLASSIFICATION: Classification,
    TaskKind.REGRESSION: Regression,
    TaskKind.TOKEN_CLASSIFICATION: TokenClassification,
    TaskKind.QUESTION_ANSWERING: QuestionAnswering,
    TaskKind.LANGUAGE_MODELLING: CausalModelling,
}
_BY_HEAD: dict[tuple[TaskKind, str], type[Task]] = {
    (TaskKind.REGRESSION, "base"): Similarity,
    (TaskKind.LANGUAGE_MODELLING, "masked-lm"): MaskedModelling,
}
# By which metric a data set is judged, where it is not the first of its kind: as GLUE does.
_PRIMARY = {"mrpc": "f1", "qqp": "f1", "cola": "matthews"}


def model_label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes' names in a model's configuration, by number; none where they only count."""
    found = config.get("id2label") or {}
    try:
        names = tuple(str(found[key]) for key in sorted(found, key=int))
    except (TypeError, ValueError):
        return ()
    return () if any(_UNNAMED.fullmatch(name) for name in names) else names


def task_for(
    split: Split,
    *,
    head: str | None = None,
    num_labels: int | None = None,
    label_names: Sequence[str] = (),
    metric: str | None = None,
) -> Task:
    """The task of a split.

    ``head`` is the model's (None: the one that the kind usually needs), ``num_labels`` the
    number of its outputs and ``label_names`` their names, else the split's own. ``metric`` is
    the primary one, else that of the data set's name: F1 for MRPC and QQP, Matthews for CoLA;
    else accuracy, Spearman, F1 of spans or of answers, perplexity. Raises InputError where the
    head does not fit the data, or there is no such metric.
    """
    kind = _BY_HEAD.get((split.kind, head or ""), _USUAL[split.kind])
    task = kind(
        kind=split.kind,
        num_labels=num_labels or split.num_labels,
        label_names=tuple(label_names) or split.label_names,
        primary="",
    )
    if head is not None and head != task.head:
        raise InputError(
            f"The data {split.name!r} is {split.kind.words} and needs a model with the head "
            f"{_heads(split.kind, task)}, not {head!r}: train one on it first, or take other data."
        )
    if metric is not None and metric not in task.metric_names:
        raise InputError(
            f"There is no metric {metric!r} of {split.kind.words}: choose one of "
            f"{', '.join(task.metric_names)}."
        )
    known = _PRIMARY.get(re.sub(r"[^a-z0-9]", "", split.name.lower()), "")
    usual = known if known in task.metric_names else task.metric_names[0]
    return replace(task, primary=metric or usual)


def _heads(kind: TaskKind, task: Task) -> str:
    others = [head for known, head in _BY_HEAD if known is kind]
    return " or ".join(repr(head) for head in (task.head, *others))
