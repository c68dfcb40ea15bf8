"""Checkpoints, of which a killed training may leave broken ones: the last whole one is taken.

A checkpoint is whole from the moment that its mark is written, after all else, until the mark is
deleted, before all else. An older one goes when a newer one is whole:

    write 20: weights ... optimizer ... mark | delete 10: mark ... weights ... optimizer
    killed:   10 is taken                    | 20 is taken
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

__all__ = ["MARK", "checkpoint_name", "keep_only", "last_checkpoint", "mark_whole", "read_mark"]

MARK = "whole.json"
"""A file that is written into a checkpoint when all else is there."""


def checkpoint_name(step: int) -> str:
    """As transformers calls it."""
    return f"checkpoint-{step}"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step that is whole; what is not is deleted."""
    found: list[tuple[int, Path]] = []
    for path in _all(folder):
        number = path.name.rpartition("-")[2]
        if (path / MARK).is_file() and number.isdigit():
            found.append((int(number), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


def keep_only(folder: Path, steps: Collection[int | None]) -> None:
    """Delete all checkpoints but those of these steps."""
    kept = {checkpoint_name(step) for step in steps if step is not None}
    for path in _all(folder):
        if path.name not in kept:
            (path / MARK).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def mark_whole(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Say that all of a checkpoint is written, with ``facts`` (plain values) of the training."""
    temporary = checkpoint / f".{MARK}"
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(checkpoint / MARK)


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """The facts that `mark_whole` was told."""
    return dict(json.loads((checkpoint / MARK).read_text(encoding="utf-8")))


def _all(folder: Path) -> list[Path]:
    return list(folder.glob(checkpoint_name(0).replace("0", "*")))
