"""The values of a row, checked: each error is one sentence with the file and the row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .kinds import TaskKind

__all__ = ["check_row"]


def check_row(kind: TaskKind, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The fields of a row with ``place`` added, scores as floats; InputError for a wrong value.

    Labels and tags stay integers or strings, as they were found.
    """
    row = dict(fields, place=place)
    if kind == TaskKind.QUESTION_ANSWERING:
        row["id"] = str(row["id"])
        for name in ("context", "question"):
            _text(row[name], name, place)
        row["answers"] = _answers(row["answers"], row["context"], place)
        return row
    if kind == TaskKind.TOKEN_CLASSIFICATION:
        _tagged(row["tokens"], row["tags"], place)
        return row
    if kind == TaskKind.LANGUAGE_MODELLING:
        _string(row["text"], "text", place)  # an empty line belongs to a text
        return row
    _text(row["text"], "text", place)
    if row.get("text_pair") is not None:
        _text(row["text_pair"], "text_pair", place)
    if kind == TaskKind.REGRESSION:
        row["score"] = _score(row["score"], place)
    else:
        _label(row["label"], "label", place)
    return row


def _string(value: Any, name: str, place: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"{place}: {name!r} is a {type(value).__name__}, not a string.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: {name!r} holds half of a surrogate pair, which is no character."
        ) from error


def _text(value: Any, name: str, place: str) -> None:
    _string(value, name, place)
    if not value.strip():
        raise InputError(f"{place}: {name!r} is empty: fill it in, or leave the row out.")


def _label(value: Any, name: str, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InputError(
            f"{place}: {name!r} is a {type(value).__name__}, not an integer or a string."
        )
    if isinstance(value, str):
        _text(value, name, place)
    elif not 0 <= value < 1_000_000:
        hidden = " (many public test splits hide their labels so)" if value == -1 else ""
        raise InputError(f"{place}: {name!r} is {value}, but classes count from 0{hidden}.")


def _score(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{place}: 'score' is a {type(value).__name__}, not a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{place}: 'score' is {number}, not a finite number.")
    return number


def _tagged(tokens: Any, tags: Any, place: str) -> None:
    for name, values in (("tokens", tokens), ("tags", tags)):
        if not isinstance(values, list):
            raise InputError(f"{place}: {name!r} is a {type(values).__name__}, not a list.")
    if not tokens:
        raise InputError(f"{place}: 'tokens' is empty: fill it in, or leave the row out.")
    if len(tokens) != len(tags):
        raise InputError(
            f"{place} has {len(tokens)} tokens and {len(tags)} tags: give one tag a token."
        )
    for token in tokens:
        _text(token, "tokens", place)
    for tag in tags:
        _label(tag, "tags", place)


def _answers(value: Any, context: str, place: str) -> dict[str, list[Any]]:
    texts, starts = (
        (value.get("text"), value.get("answer_start")) if isinstance(value, dict) else (None, None)
    )
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise InputError(
            f"{place}: 'answers' must be an object with the lists 'text' and 'answer_start'."
        )
    if not texts or len(texts) != len(starts):
        raise InputError(
            f"{place} has {len(texts)} answers and {len(starts)} offsets: each question needs an "
            "answer, and each answer an offset."
        )
    for text, start in zip(texts, starts, strict=True):
        _text(text, "answers", place)
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise InputError(f"{place}: 'answer_start' holds {start!r}, not an offset from 0.")
        found = context[start : start + len(text)]
        if found != text:
            raise InputError(
                f"{place}: the answer {_short(text)} is not at the offset {start} of its context, "
                f"where {_short(found)} stands: offsets count characters."
            )
    return {"text": texts, "answer_start": starts}


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
