"""The measurements that count on this machine: those that ship with canao, and the user's."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from ....paths import cache_dir
from ....targets import Target
from .choices import choose
from .host import cpu_key, is_alike, is_this_machine
from .measure import Effort, Measured, measure
from .problem import Problem
from .table import Table, Times, read_table, write_table

__all__ = ["SHIPPED", "choices_for", "extend_table", "tune", "user_table"]

SHIPPED = Path(__file__).with_name("table.json")

Progress = Callable[[str], None]


def user_table() -> Path:
    """Where the user's own measurements are."""
    return cache_dir("choices") / "products.json"


def choices_for(target: Target, *, alike: bool = True) -> tuple[dict[str, str], list[str]]:
    """The choices that hold for ``target``, and a sentence for each table that was ignored.

    None hold but for code for this machine. With ``alike``, what ships for CPUs with the same
    features stands in for what nobody measured on this very one.
    """
    if not is_this_machine(target):
        return {}, []
    shipped, unread = read_table(SHIPPED)
    own, ignored = read_table(user_table())
    measured = dict(shipped.joined(own).of(cpu_key()))
    if alike:
        measured = {**_of_alike(shipped), **measured}
    return choose(measured), [*unread, *ignored]


def _of_alike(table: Table) -> Mapping[Problem, Times]:
    """What was measured on CPUs with the features of this one; of several the first by name."""
    found: dict[Problem, Times] = {}
    for name in sorted(table.cpus, reverse=True):
        if is_alike(name, cpu_key()):
            found |= table.of(name)
    return found


def tune(
    problems: Collection[Problem],
    target: Target,
    progress: Progress,
    *,
    effort: Effort | None = None,
) -> list[str]:
    """Measure ``problems`` and keep the times in the user's table.

    Returns a sentence for each problem that could not be measured and each candidate that was
    left out; nothing is measured for a target that is not this machine.
    """
    if not is_this_machine(target):
        return []
    return extend_table(user_table(), problems, target, progress, effort=effort)


def extend_table(
    path: Path,
    problems: Collection[Problem],
    target: Target,
    progress: Progress,
    *,
    effort: Effort | None = None,
    told: Callable[[Measured], None] = lambda _: None,
) -> list[str]:
    """Measure for this CPU into the table at ``path``, writing after each problem."""
    notes = []
    for number, problem in enumerate(sorted(problems), 1):
        spelled = problem.spelled()
        progress(f"measuring products, {number} of {len(problems)}: {spelled}")
        found = measure(problem, target, effort=effort)
        notes += [
            f"{label} was left out for {spelled}, because {reason}."
            for label, reason in found.dropped.items()
        ]
        if found.times:
            try:
                with _alone(path):
                    before, _ = read_table(path)
                    write_table(path, before.joined(Table({cpu_key(): {problem: found.times}})))
            except OSError as error:
                notes.append(f"{path} cannot be written ({error.strerror}).")
        else:
            notes.append(
                f"{spelled} was not measured, because the machine was too busy: try again later."
            )
        told(found)
    return notes


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One writer at a time, where the file system has locks."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
