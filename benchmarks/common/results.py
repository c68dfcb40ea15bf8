"""Writing results: JSON that a diff can be read of, and Markdown tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["replace_text", "table", "write_json"]


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results with any list of plain values, such as a round's samples, on one line."""
    replace_text(path, _layout(dict(results), "") + "\n")


def table(rows: Sequence[Sequence[str]], *, numbers_from: int) -> str:
    """A Markdown table; columns from ``numbers_from`` on are aligned to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def _layout(value: Any, indent: str) -> str:
    nested = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(x, dict | list) for x in nested):
        return json.dumps(value, allow_nan=False)
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {_layout(item, deeper)}" for key, item in value.items()]
        left, right = "{", "}"
    else:
        lines = [_layout(item, deeper) for item in value]
        left, right = "[", "]"
    return f"{left}\n{deeper}" + f",\n{deeper}".join(lines) + f"\n{indent}{right}"
