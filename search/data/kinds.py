"""What a data set asks of a model, and what its rows look like."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ...errors import InputError

__all__ = ["FIELDS", "Row", "TaskKind", "unlike"]

Row = Mapping[str, Any]
"""A checked row: the fields of `FIELDS`, and ``place``, which tells its file and number."""


class TaskKind(StrEnum):
    """The kinds of task that a data set can be."""

    CLASSIFICATION = "classification"
    PAIR_CLASSIFICATION = "pair_classification"
    REGRESSION = "regression"
    TOKEN_CLASSIFICATION = "token_classification"
    QUESTION_ANSWERING = "question_answering"
    LANGUAGE_MODELLING = "language_modelling"

    @property
    def words(self) -> str:
        """The kind as a reader says it."""
        return self.value.replace("_", " ")


FIELDS: dict[TaskKind, tuple[str, ...]] = {
    TaskKind.CLASSIFICATION: ("text", "label"),
    TaskKind.PAIR_CLASSIFICATION: ("text", "text_pair", "label"),
    TaskKind.REGRESSION: ("text", "text_pair", "score"),
    TaskKind.TOKEN_CLASSIFICATION: ("tokens", "tags"),
    TaskKind.QUESTION_ANSWERING: ("id", "context", "question", "answers"),
    TaskKind.LANGUAGE_MODELLING: ("text",),
}
"""The fields of a row. ``label`` and ``tags`` are integers, ``score`` is a float, ``text_pair``
may be None, ``answers`` is {"text": [...], "answer_start": [...]}, starts in characters."""


def unlike(place: str, kind: TaskKind, other: str, other_kind: TaskKind) -> InputError:
    """The error for a row at ``place`` whose kind is not that of the row at ``other``.

    Plain text beside rows of a task lacks what the task needs, whichever of them came first.
    """
    if TaskKind.LANGUAGE_MODELLING in (kind, other_kind):
        if kind is not TaskKind.LANGUAGE_MODELLING:
            place, kind, other, other_kind = other, other_kind, place, kind
        told = f"{place} has text alone, without the {FIELDS[other_kind][-1]!r} that {other} has"
    else:
        told = f"{place} is {kind.words}, but {other} is {other_kind.words}"
    return InputError(f"{told}: all rows must be of one kind, each with all fields.")
