"""What the command line prints: tables and progress for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["counted", "milliseconds", "print_json", "print_table", "progress", "say", "warn"]

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line on standard output."""
    _out.print(text, markup=False)


def warn(text: str) -> None:
    """A warning on standard error."""
    _err.print(f"canao: warning: {text}", markup=False, style="yellow")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, and nothing else there."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; columns whose name ends in a unit are right-aligned."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        numeric = column.endswith(("ms", "%", "bytes", "calls", "cosine"))
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _out.print(table, markup=False)


def counted(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Counts by module as lines; modules that have the same ones share a line."""
    alike: dict[str, list[str]] = {}
    for module, counts in found.items():
        text = "; ".join(f"{count} x {what}" for what, count in counts.items())
        if text:
            alike.setdefault(text, []).append(module)
    return [f"{', '.join(modules)}: {text}" for text, modules in alike.items()]


def milliseconds(value: float | None) -> str:
    """A time for people: three significant digits."""
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows the current step on a terminal and is silent elsewhere."""
    if not _err.is_terminal:
        yield lambda _: None
        return
    with _err.status("starting") as status:
        yield lambda text: status.update(text)
