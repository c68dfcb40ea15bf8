"""Checkpoints that a killed training left: the last whole one is taken, broken ones go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

__all__ = ["MARK", "checkpoint_name", "is_finished", "last_checkpoint"]

MARK = "whole.json"
"""A file that is written into a checkpoint when all else is there."""


def checkpoint_name(step: int) -> str:
    """As transformers calls it."""
    return f"checkpoint-{step}"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step that is whole; what is not is deleted."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob(checkpoint_name(0).replace("0", "*")):
        number = path.name.rpartition("-")[2]
        if (path / MARK).is_file() and number.isdigit():
            found.append((int(number), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


def is_finished(checkpoint: Path) -> bool:
    """Whether no step of the training comes after this checkpoint."""
    return bool(json.loads((checkpoint / MARK).read_text(encoding="utf-8"))["finished"])
