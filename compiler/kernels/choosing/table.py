"""What was measured, kept as versioned JSON: by CPU, then by product.

    {"schema": 2, "cpus": {KEY: [{"precision": "f32", "rows": 128, "depth": 384,
     "outputs": 1536, "best": "avx512_f32_8x48", "microseconds": {LABEL: 312.5, ...}}, ...]}}

Where weights are zero it also says ``panel`` and ``kept`` (`problem.Problem`).

A file may be damaged or somebody else's: whatever is not as above is left out, never an error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....targets import PRECISIONS
from .labels import serves
from .problem import Problem
from .zeros import INPUTS, PANELS, WHOLE

__all__ = ["SCHEMA", "Table", "Times", "read_table", "write_table"]

SCHEMA = 2

Times = Mapping[str, float]
"""Microseconds by a candidate's label."""

_LARGEST_FILE = 1 << 24
_LARGEST_SIZE = 1 << 31


@dataclass(frozen=True)
class Table:
    """Times by CPU (`host.cpu_key`) and problem."""

    cpus: Mapping[str, Mapping[Problem, Times]] = field(default_factory=dict)

    def of(self, cpu: str) -> Mapping[Problem, Times]:
        """What was measured on a CPU."""
        return self.cpus.get(cpu, {})

    def joined(self, other: Table) -> Table:
        """Both; where both know a problem, as ``other`` has it."""
        names = dict.fromkeys((*self.cpus, *other.cpus))
        return Table({name: {**self.of(name), **other.of(name)} for name in names})

    def to_bytes(self) -> bytes:
        """The file, the same for the same table; one problem a line."""
        cpus = []
        for name in sorted(self.cpus):
            entries = sorted(self.cpus[name].items())
            lines = ",\n".join(f"  {json.dumps(_entry(*entry))}" for entry in entries)
            cpus.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        body = ",\n".join(cpus)
        return f'{{"schema": {SCHEMA}, "cpus": {{\n{body}\n}}}}\n'.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Table:
        """The inverse of `to_bytes`. Raises `ValueError` for what is no table of this version."""
        if len(data) > _LARGEST_FILE:
            raise ValueError("it is too large")
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError("it is not JSON") from error
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        schema = values.get("schema")
        if type(schema) is not int or schema != SCHEMA:
            found = schema if type(schema) is int and abs(schema) < 10**9 else "another"
            raise ValueError(f"its version is {found}, not {SCHEMA}")
        cpus = values.get("cpus")
        if not isinstance(cpus, dict):
            raise ValueError("it has no CPUs")
        return cls({name: dict(_entries(listed)) for name, listed in cpus.items()})


def read_table(path: Path) -> tuple[Table, list[str]]:
    """The table in a file, and a sentence if it had to be ignored; empty where there is none."""
    try:
        with path.open("rb") as file:
            return Table.from_bytes(file.read(_LARGEST_FILE + 1)), []
    except FileNotFoundError:
        return Table(), []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Table(), [
            f"The measurements in {path} are ignored, because {reason}; --tune makes them again."
        ]


def write_table(path: Path, table: Table) -> None:
    """Write whole or not at all. Raises `OSError`."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(table.to_bytes())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _entry(problem: Problem, times: Times) -> dict[str, Any]:
    rounded = {label: float(f"{times[label]:.4g}") for label in sorted(times)}
    best = min(rounded, key=lambda label: rounded[label])
    fields = dict(vars(problem))
    if not problem.zeros:
        del fields["panel"], fields["kept"]
    return {**fields, "best": best, "microseconds": rounded}


def _entries(listed: object) -> Iterator[tuple[Problem, Times]]:
    if not isinstance(listed, list):
        return
    for entry in listed:
        problem = _problem(entry) if isinstance(entry, dict) else None
        times = dict(_times(problem, entry.get("microseconds"))) if problem else {}
        if problem and times:
            yield problem, times


def _problem(entry: Mapping[str, Any]) -> Problem | None:
    sizes = [entry.get(name) for name in ("rows", "depth", "outputs")]
    precision = entry.get("precision")
    if precision not in PRECISIONS or not all(map(_is_size, sizes)):
        return None
    rows, depth, outputs = (int(size) for size in sizes if size is not None)
    panel, kept = entry.get("panel", INPUTS), entry.get("kept", 100)
    if type(panel) is not int or panel not in (*WHOLE, *PANELS):
        return None
    if type(kept) is not int or not 0 < kept <= 100:
        return None
    return Problem(precision, rows, depth, outputs, panel, kept)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < _LARGEST_SIZE


def _times(problem: Problem, found: object) -> Iterable[tuple[str, float]]:
    if not isinstance(found, dict):
        return
    for label, value in found.items():
        number = type(value) in (int, float) and abs(value) < 1e15
        if number and math.isfinite(value) and value > 0 and serves(label, problem):
            yield label, float(value)
