"""Spans in tags of the form B-x, I-x, O, as the CoNLL-2000 evaluation reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["are_span_tags", "spans"]

_TAG = re.compile(r"O|[BI]-.+")


def are_span_tags(names: Sequence[str]) -> bool:
    """Whether names of classes mark spans."""
    return "O" in names and len(names) > 1 and all(_TAG.fullmatch(name) for name in names)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The (kind, first, one past the last) of each span; an I- that continues none begins one."""
    found: set[tuple[str, int, int]] = set()
    kind, begin = "", 0
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and (prefix != "I" or name != kind):
            found.add((kind, begin, index))
            kind = ""
        if prefix != "O" and not kind:
            kind, begin = name, index
    return found
