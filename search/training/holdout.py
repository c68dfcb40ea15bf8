"""The tenth of the training rows that chooses checkpoints; the other rows are trained on."""

from __future__ import annotations

import random

from ...errors import InputError
from ..data import Row, Split, TaskKind

__all__ = ["hold_out"]


def hold_out(split: Split, fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows held out), both in their order; no text is on both sides.

    Rows with the same text (in question answering: context) stay together. About ``fraction`` of
    the rows, at least one, are held out, drawn by ``seed``; of plain text, the end. Raises
    `InputError` where there are not two texts.
    """
    rows = split.rows
    wanted = max(1, round(fraction * len(rows)))
    groups: dict[str, list[int]] = {}
    if split.kind is TaskKind.LANGUAGE_MODELLING:
        border = len(rows) - wanted
        groups = {"0": list(range(border, len(rows))), "1": list(range(border))}
        order = [key for key in groups if groups[key]]
    else:
        for index, row in enumerate(rows):
            groups.setdefault(_text(row), []).append(index)
        order = sorted(groups)
        random.Random(seed).shuffle(order)
    if len(order) < 2:
        raise InputError(
            f"The training split of {split.name!r} has one text alone: a part of it is held out "
            "to choose by, so at least two are needed."
        )
    held: set[int] = set()
    for key in order[:-1]:
        if len(held) >= wanted:
            break
        held.update(groups[key])
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _text(row: Row) -> str:
    found = row.get("context", row.get("text", row.get("tokens")))
    return " ".join(found) if isinstance(found, list | tuple) else str(found)
