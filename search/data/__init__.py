"""Data sets: rows of one kind, from a directory of JSON lines or text, or from the Hub."""

from __future__ import annotations

from .kinds import Row, TaskKind
from .splits import Split, load_split

__all__ = ["Row", "Split", "TaskKind", "load_split"]
