"""From a row as it was found to fields of known names, and the kind of task that it is.

Data sets call the same things by different names: the tables below hold those that are usual.
What is not named there (``idx``, ``domain``, ``title``) is ignored beside a label:

    {"text": "fine", "label": 1, "domain": "in"}    classification
    {"text": "It rained.", "url": "..."}            language modelling
    {"text": "fine", "lable": 1}                    refused: a label misspelt, or plain text?
    {"text": "a", "text_piar": "b", "label": 1}     refused: a pair misspelt

A row without a label is plain text, and no label can be missed in it, only where all that stands
beside the text says where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
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
_ORIGINS = ("id", "url", "title", "date", "timestamp", "source", "language", "meta", "metadata")
_KNOWN = frozenset(
    {"id", "tokens", "context", "question", "answers", *_TEXTS, *_SCORES, *LABELS, *TAGS}
    | {name for pair in _PAIRS for name in pair}
)


def recognise(raw: Mapping[str, Any], place: str) -> tuple[TaskKind, dict[str, Any]]:
    """The kind of a row, and its fields by their names in `FIELDS`, values as they were found.

    Raises InputError, naming ``place`` and the field that is missing or misspelt, for a row of no
    kind, and for one that is plain text by a mistake only.
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
    if pair is None:
        _refuse_misspelt_pair(raw, text, place)
    if score is not None:
        fields = {"text": raw[text], "text_pair": second, "score": raw[score]}
        return TaskKind.REGRESSION, fields
    if label is None:
        if pair is not None:
            raise InputError(f"{place} has no 'label' and no 'score' for its pair of texts.")
        _refuse_missed_label(raw, text, place)
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


def _refuse_missed_label(raw: Mapping[str, Any], text: str, place: str) -> None:
    """Refuse a row without a label that has a field where a label may be meant."""
    strangers = [name for name in raw if name != text and name not in _ORIGINS]
    if not strangers:
        return
    empty = next((name for name in strangers if name in (*LABELS, *_SCORES)), None)
    if empty is not None:
        raise InputError(f"{place}: {empty!r} is null: fill it in, or leave the row out.")
    guesses = {name: _meant(name) for name in strangers}
    name = next((name for name in strangers if guesses[name]), strangers[0])
    guess = f" (is {guesses[name]!r} meant?)" if guesses[name] else ""
    raise InputError(
        f"{place} has no 'label' and no 'score', but {name!r}{guess}: rename it, or leave it out "
        f"if the text alone is to be learnt ({', '.join(map(repr, _ORIGINS))} may stay)."
    )


def _refuse_misspelt_pair(raw: Mapping[str, Any], text: str, place: str) -> None:
    """Refuse a row of one text whose second one has nearly the name of a second one."""
    seconds = [second for first, second in _PAIRS if first == text]
    for name in raw:
        if _meant(name, 0.88) in seconds:
            raise InputError(
                f"{place} has no {_meant(name, 0.88)!r}, but {name!r}: rename it if it is the "
                "second text, else leave it out."
            )


@lru_cache(maxsize=1024)
def _meant(name: str, likeness: float = 0.8) -> str | None:
    """The known name that an unknown one nearly is."""
    if name in _KNOWN or name in _ORIGINS:
        return None
    close = get_close_matches(name.casefold(), sorted(_KNOWN), n=1, cutoff=likeness)
    return close[0] if close else None


def _first(raw: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if raw.get(name) is not None), None)


def _need(raw: Mapping[str, Any], name: str, place: str) -> Any:
    if raw.get(name) is None:
        raise InputError(f"{place} has no {name!r}, which a question about a text needs.")
    return raw[name]
