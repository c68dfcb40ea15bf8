"""From a row as it was found to fields of known names, and the kind of task that it is.

Data sets call the same things by different names: the tables below hold those that are usual.
What is not named there (``idx``, ``domain``, ``title``) is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .kinds import TaskKind

__all__ = ["LABELS", "TAGS", "recognise"]

_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text1", "text2"),
)
_TEXTS = ("text", "sentence", "content", "review")
_SCORES = ("score", "similarity_score")
LABELS = ("label", "labels")
TAGS = ("tags", "ner_tags", "labels", "pos_tags", "chunk_tags")


def recognise(raw: Mapping[str, Any], place: str) -> tuple[TaskKind, dict[str, Any]]:
    """The kind of a row, and its fields by their names in `FIELDS`, values as they were found.

    Raises InputError, naming ``place`` and the missing field, for a row of no kind.
    """
    if "context" in raw or "answers" in raw:
        fields = {name: _need(raw, name, place) for name in ("context", "question", "answers")}
        return TaskKind.QUESTION_ANSWERING, {"id": raw.get("id", place), **fields}
    if "tokens" in raw:
        tags = _first(raw, TAGS)
        if tags is None:
            raise InputError(f"{place} has no 'tags' beside its 'tokens': give one for each.")
        return TaskKind.TOKEN_CLASSIFICATION, {"tokens": raw["tokens"], "tags": raw[tags]}
    text, pair = _texts(raw, place)
    second = None if pair is None else raw[pair]
    score, label = _first(raw, _SCORES), _first(raw, LABELS)
    if score is None and label is not None and isinstance(raw[label], float):
        score = label
    if score is not None:
        fields = {"text": raw[text], "text_pair": second, "score": raw[score]}
        return TaskKind.REGRESSION, fields
    if label is None:
        if pair is not None:
            raise InputError(f"{place} has no 'label' and no 'score' for its pair of texts.")
        return TaskKind.LANGUAGE_MODELLING, {"text": raw[text]}
    if pair is None:
        return TaskKind.CLASSIFICATION, {"text": raw[text], "label": raw[label]}
    fields = {"text": raw[text], "text_pair": second, "label": raw[label]}
    return TaskKind.PAIR_CLASSIFICATION, fields


def _texts(raw: Mapping[str, Any], place: str) -> tuple[str, str | None]:
    """The names of the text, and of the second one where there is one."""
    for first, second in _PAIRS:
        if first in raw and raw.get(second) is not None:
            return first, second
    for name in _TEXTS:
        if name in raw:
            return name, None
    partner = next((pair for pair in _PAIRS if any(name in raw for name in pair)), ("text", ""))
    missing = next(name for name in partner if name not in raw or raw[name] is None)
    raise InputError(
        f"{place} has no {missing!r}; its fields: {', '.join(map(repr, raw)) or 'none'}."
    )


def _first(raw: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if raw.get(name) is not None), None)


def _need(raw: Mapping[str, Any], name: str, place: str) -> Any:
    if raw.get(name) is None:
        raise InputError(f"{place} has no {name!r}, which a question about a text needs.")
    return raw[name]
