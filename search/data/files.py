"""The files of a data set: which one is a split, and the raw rows in it."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from ...errors import InputError

__all__ = ["ALIASES", "AbsentSplitError", "find_file", "read_rows"]

ALIASES = {
    "dev": ("dev", "validation", "valid", "val"),
    "validation": ("validation", "dev", "valid", "val"),
}
"""The names under which a split may be kept, the asked one first."""


class AbsentSplitError(InputError):
    """A data set is there, but has no split of that name."""


_ENDINGS = (".jsonl.gz", ".jsonl", ".txt.gz", ".txt")


def find_file(folder: Path, split: str) -> Path:
    """The file that holds ``split``; InputError where there is none, or more than one."""
    for name in ALIASES.get(split, (split,)):
        found = [folder / (name + ending) for ending in _ENDINGS]
        found = [path for path in found if path.is_file()]
        if len(found) > 1:
            raise InputError(
                f"{folder} has the split {name!r} twice, as {found[0].name} and "
                f"{found[1].name}: keep one of them."
            )
        if found:
            return found[0]
    here = sorted(path.name for path in folder.iterdir() if path.name.endswith(_ENDINGS))
    told = f"it has {', '.join(here)}" if here else "it has no *.jsonl(.gz) and no *.txt(.gz)"
    raise AbsentSplitError(f"{folder} has no split {split!r}: {told}.")


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a file with its place: objects of JSON lines, or lines of text as ``text``.

    Lines end in LF (or CR LF) and are counted from 1. Blank lines of JSON lines are left out,
    those of a text belong to it. Raises InputError, naming file and row, for what cannot be
    read.
    """
    is_json = path.name.removesuffix(".gz").endswith(".jsonl")
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}, row {number}"
                if not is_json:
                    yield place, {"text": line.rstrip("\r\n")}
                elif line.strip():
                    yield place, _parse(line, place)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after row {number}, is not text in UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        broken = "is a broken gzip file" if path.suffix == ".gz" else "cannot be read"
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} {broken} (after row {number}): {reason}.") from error


def _open(path: Path) -> IO[str]:
    # Only LF ends a line: texts hold other separators of Unicode, which str.splitlines takes.
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")


def _parse(line: str, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{place} is a JSON {type(value).__name__}, not an object with fields.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
