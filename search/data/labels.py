"""Names of classes and their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import InputError
from .kinds import Row, TaskKind

__all__ = ["are_names", "label_values", "number_labels"]

LABELLED = (
    TaskKind.CLASSIFICATION,
    TaskKind.PAIR_CLASSIFICATION,
    TaskKind.TOKEN_CLASSIFICATION,
)


def label_values(kind: TaskKind, rows: Sequence[Row]) -> Iterable[tuple[Any, str]]:
    """Each label (or tag) of the rows with its row's place; nothing for kinds without."""
    if kind in LABELLED:
        several = kind == TaskKind.TOKEN_CLASSIFICATION
        for row in rows:
            for value in row["tags"] if several else (row["label"],):
                yield value, row.get("place", "A row")


def are_names(kind: TaskKind, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether labels are strings; InputError where some are and some are not."""
    first: bool | None = None
    for value, place in label_values(kind, rows):
        named = isinstance(value, str)
        if first is None:
            first = named
        if named is not first:
            raise InputError(
                f"{place}: the label {value!r} is a {type(value).__name__}, but labels before it "
                "are not: give all as integers, or all as strings."
            )
    return bool(first)


def number_labels(
    kind: TaskKind, rows: Sequence[dict[str, Any]], own: Sequence[str], wanted: Sequence[str]
) -> tuple[str, ...]:
    """Make every label the number of its class, in place; return the names of the classes.

    ``own`` are the names that the data set gives to its numbers, or may give to its strings;
    ``wanted`` are those of the model, in its order, and win where there are some. Names are
    compared without regard to case.
    """
    if kind not in LABELLED:
        return ()
    if are_names(kind, rows):
        names = tuple(wanted or own)
        numbers = {name.casefold(): number for number, name in enumerate(names)}
        numbers.update({name: number for number, name in enumerate(names)})
        _replace(kind, rows, lambda value, place: _number(value, numbers, names, place))
        return names
    if own and wanted and {n.casefold() for n in own} == {n.casefold() for n in wanted}:
        # Models of one task differ in the order of their classes, so names decide.
        places = {name.casefold(): number for number, name in enumerate(wanted)}
        order = [places[name.casefold()] for name in own]
        _replace(kind, rows, lambda value, place: order[_below(value, len(order), place)])
        return tuple(wanted)
    for value, place in label_values(kind, rows):
        if own:
            _below(value, len(own), place)
    return tuple(own)


def _replace(kind: TaskKind, rows: Sequence[dict[str, Any]], number: Any) -> None:
    for row in rows:
        if kind == TaskKind.TOKEN_CLASSIFICATION:
            row["tags"] = [number(tag, row["place"]) for tag in row["tags"]]
        else:
            row["label"] = number(row["label"], row["place"])


def _number(value: str, numbers: dict[str, int], names: Sequence[str], place: str) -> int:
    found = numbers.get(value, numbers.get(value.casefold()))
    if found is None:
        raise InputError(f"{place}: the label {value!r} is none of {', '.join(names)}.")
    return found


def _below(value: int, count: int, place: str) -> int:
    if value >= count:
        raise InputError(f"{place}: the label {value} is out of range: there are {count} classes.")
    return value
