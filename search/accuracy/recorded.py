"""Accuracies that were found before and ship with canao, to compare controllers by.

One JSON object a line: ``version``, ``task`` (the data set's name), ``teacher``, ``architecture``
and ``accuracy``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.compression import fields
from ...errors import InputError
from ..space.architecture import Architecture
from .result import Accuracy

__all__ = ["RECORDED", "RecordedAccuracy", "read_accuracies"]

VERSION = 1
RECORDED = Path(__file__).parent / "recorded"
"""The tables that ship with canao, ``TASK.jsonl`` each."""


@dataclass(frozen=True, kw_only=True)
class RecordedAccuracy:
    """``accuracy`` of ``architecture`` as a sub-network of ``teacher``, on data named ``task``."""

    version: int = VERSION
    task: str
    teacher: str
    architecture: Architecture
    accuracy: Accuracy

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives back an equal one."""
        return {
            "version": self.version,
            "task": self.task,
            "teacher": self.teacher,
            "architecture": self.architecture.to_json(),
            "accuracy": self.accuracy.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> RecordedAccuracy:
        """From what `to_json` gave; InputError, naming the field, otherwise."""
        names = cls.__dataclass_fields__
        found: Mapping[str, Any] = fields.table(value, "The record", names, of="a record")
        if found.get("version") != VERSION or isinstance(found["version"], bool):
            raise InputError(f"version of the record must be {VERSION}.")
        return cls(
            task=fields.text(found.get("task"), "task"),
            teacher=fields.text(found.get("teacher"), "teacher"),
            architecture=Architecture.from_json(found.get("architecture")),
            accuracy=Accuracy.from_json(found.get("accuracy")),
        )


def read_accuracies(path: Path) -> list[RecordedAccuracy]:
    """All lines of a file. Raises `InputError`, naming the file and the line, for a wrong one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"{path}: accuracies cannot be read ({reason}).") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(RecordedAccuracy.from_json(json.loads(line)))
        except (ValueError, RecursionError, InputError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(f"{path}:{number}: {reason}.") from error
    return found
