"""A split: rows of one kind, read and checked."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from .checks import check_row
from .columns import recognise
from .files import AbsentSplitError, find_file, read_rows
from .hub import is_saved, looks_like_hub, open_hub, open_saved
from .kinds import Row, TaskKind, unlike
from .labels import are_names, label_values, number_labels

__all__ = ["Split", "load_split"]

_Read = tuple[TaskKind, list[dict[str, Any]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Checked rows of one kind. ``name`` is the data set's, for a directory its last part.

    ``label_names`` are the classes' names where somebody told them, by number.
    """

    name: str
    split: str
    kind: TaskKind
    rows: tuple[Row, ...]
    label_names: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        """How many classes there are: as many as have names, or as the largest label tells.

        1 for a regression, 2 for the start and the end of an answer, 0 for plain text.
        """
        fixed = {
            TaskKind.REGRESSION: 1,
            TaskKind.QUESTION_ANSWERING: 2,
            TaskKind.LANGUAGE_MODELLING: 0,
        }
        if self.kind in fixed:
            return fixed[self.kind]
        values = (value for value, _ in label_values(self.kind, self.rows))
        return len(self.label_names) or max(2, 1 + max(values))

    def first(self, limit: int | None) -> Split:
        """The first ``limit`` rows; all for None."""
        if limit is None:
            return self
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"A limit is a whole number of rows from 1 on, not {limit!r}.")
        return replace(self, rows=self.rows[:limit])


def load_split(
    data: str | os.PathLike[str], split: str = "dev", *, label_names: Sequence[str] = ()
) -> Split:
    """Read and check a split.

    ``data`` is a directory with ``SPLIT.jsonl(.gz)`` or ``SPLIT.txt(.gz)``, one such file, a
    directory that ``datasets`` saved, a Hub id or ``ID:CONFIG``; or several of these, joined by
    commas and of one kind, whose rows follow each other. ``dev`` finds ``validation`` too.
    ``label_names`` are a model's, in its order: strings (and numbers that the data set names)
    become its numbers. Without them strings are numbered in the order of the sorted names of
    the training split, or of this one where there is no other.

    Raises InputError, in one sentence with file and row, for whatever is wrong.
    """
    parts = _parts(os.fspath(data))
    read = [_read(part, split) for part in parts]
    kind, rows, own = read[0][0], [row for _, some, _ in read for row in some], read[0][2]
    for other, some, _ in read:
        if other is not kind:
            raise unlike(some[0]["place"], other, rows[0]["place"], kind)
    if not own and not label_names and are_names(kind, rows):
        own = _names_of_training(parts, split, kind, rows)
    names = number_labels(kind, rows, own, label_names)
    _check_variety(kind, rows)
    return Split(
        name="+".join(_short(part) for part in parts),
        split=split,
        kind=kind,
        rows=tuple(rows),
        label_names=names,
    )


def _parts(data: str) -> list[str]:
    if not data.strip():
        raise InputError("The data has no name: give a directory, a file or a Hub id.")
    if Path(data).exists():
        return [data]
    parts = [part.strip() for part in data.split(",")]
    if not all(parts):
        raise InputError(f"The data {data!r} has an empty part between its commas.")
    return parts


def _read(part: str, split: str) -> _Read:
    path = Path(part).expanduser()
    if path.is_dir():
        if is_saved(path):
            return _checked(*open_saved(path, split), part)
        file = find_file(path, split)
        return _checked(read_rows(file), [], str(file))
    if path.is_file():
        return _checked(read_rows(path), [], part)
    if looks_like_hub(part):
        return _checked(*open_hub(part, split), part)
    raise InputError(f"There is no data at {part}: give a directory, a file or a Hub id.")


def _checked(raw: Iterable[tuple[str, Mapping[str, Any]]], names: list[str], source: str) -> _Read:
    read: list[tuple[str, dict[str, Any]]] = []
    places: dict[TaskKind, str] = {}  # of the first row of each kind
    counts: Counter[TaskKind] = Counter()
    for place, row in raw:
        found, fields = recognise(row, place)
        read.append((place, fields))
        places.setdefault(found, place)
        counts[found] += 1
    if not read:
        raise InputError(f"{source} is empty: it has no row.")
    (kind, _), *others = counts.most_common()  # the first of equals
    if others:  # the odd row is one of the fewer
        raise unlike(places[others[0][0]], others[0][0], places[kind], kind)
    rows = [check_row(kind, fields, place) for place, fields in read]
    if kind is TaskKind.LANGUAGE_MODELLING and not any(row["text"].strip() for row in rows):
        raise InputError(f"{source} is empty: it has blank lines alone.")
    return kind, rows, names


def _names_of_training(
    parts: Sequence[str], split: str, kind: TaskKind, rows: Sequence[dict[str, Any]]
) -> list[str]:
    """Sorted names of the training split, so that all splits number classes alike."""
    if split != "train":
        with contextlib.suppress(AbsentSplitError):
            rows = [row for part in parts for row in _read(part, "train")[1]]
    return sorted({str(value) for value, _ in label_values(kind, rows)})


def _check_variety(kind: TaskKind, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse a split that asks nothing: one class, or one score, in all of its rows."""
    if kind is TaskKind.REGRESSION:
        values = {row["score"] for row in rows}
    else:
        values = {value for value, _ in label_values(kind, rows)}
    if len(values) == 1:
        what = "score" if kind is TaskKind.REGRESSION else "class"
        first, last = rows[0]["place"], rows[-1]["place"]
        raise InputError(
            f"From {first}, to {last} there is one {what} alone ({values.pop()!r}) in "
            f"{len(rows)} rows: nothing can be learnt from them or measured on them."
        )


def _short(part: str) -> str:
    """The data set's name: the last part of a path, a configuration, or the end of an id."""
    path = Path(part).expanduser()
    if path.is_file():
        return path.resolve().parent.name
    return path.resolve().name if path.is_dir() else part.rpartition(":")[2].rpartition("/")[2]
