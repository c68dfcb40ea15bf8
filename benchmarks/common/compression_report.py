"""The page on compression, from the finished runs alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["markdown", "write_page"]

_Line = Mapping[str, Any]
# Student's t for a 95 % interval of a mean of n values.
_STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
_WANTED = {("half", "qa"): 2.0, ("half", ""): 1.0, ("quarter", ""): 2.5}


def write_page(lines: Sequence[_Line], speed: _Line | None, path: Path) -> None:
    """Write the page; nothing where nothing was measured."""
    if lines or speed:
        replace_text(path, markdown(lines, speed))


def markdown(lines: Sequence[_Line], speed: _Line | None) -> str:
    """The whole page."""
    parts = [
        "# What compression costs in accuracy",
        "Made by `python benchmarks/compression.py --data DIR` (raw numbers in "
        "`benchmarks/results/compression.jsonl`, recipes and training options in "
        "`benchmarks/recipes/`). The teacher is the packaged all-MiniLM-L6-v2, fine-tuned on the "
        "task; the student is cut from it and distilled. Both train on the training split less a "
        "tenth, which chooses the checkpoint; the development split is read once, at the end. "
        "Values are means over seeds, a seed for teacher and student alike, with the 95 % "
        "interval of the mean (Student's t).",
    ]
    if lines:
        parts += [_accuracy(lines), _training(lines)]
    if speed:
        parts += ["## Speed of training", _speed(speed)]
    return "\n\n".join(parts) + "\n"


def _groups(lines: Sequence[_Line]) -> dict[tuple[str, str], list[_Line]]:
    """The latest run of each seed, by size and task."""
    latest = {(line["size"], line["task"], line["seed"]): line for line in lines}
    found: dict[tuple[str, str], list[_Line]] = {}
    for (size, task, _), line in sorted(latest.items()):
        found.setdefault((size, task), []).append(line)
    return found


def _accuracy(lines: Sequence[_Line]) -> str:
    head = ["Size", "Task", "Metric", "Teacher", "Student", "Difference", "FLOPs", "Parameters"]
    rows = [[*head, "Wanted", "Met", "Seeds"]]
    for (size, task), group in _groups(lines).items():
        results = [line["result"] for line in group]
        before = [r["before"]["metric"] for r in results]
        after = [r["after"]["metric"] for r in results]
        differences = [b - a for a, b in zip(before, after, strict=True)]
        wanted = _WANTED.get((size, task), _WANTED[size, ""])
        first = results[0]
        rows.append(
            [
                size,
                task,
                first["before"]["metric_name"],
                _mean(before),
                _mean(after),
                _mean(differences, signed=True),
                f"{first['after']['flops'] / first['before']['flops']:.1%}",
                f"{first['after']['params'] / first['before']['params']:.1%}",
                f"{-wanted:.1f}",
                "yes" if statistics.mean(differences) >= -wanted else "no",
                str(len(group)),
            ]
        )
    return table(rows, numbers_from=3)


def _mean(values: Sequence[float], *, signed: bool = False) -> str:
    mean = f"{statistics.mean(values):{'+' if signed else ''}.2f}"
    if len(values) < 2:
        return mean
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {_STUDENT.get(len(values), 2.3) * spread:.2f}"


def _training(lines: Sequence[_Line]) -> str:
    head = ["Task", "Size", "Teacher, min", "Student, min", "Longest, min", "Steps"]
    rows = [[*head, "Padding saved", "Load"]]
    for (size, task), group in _groups(lines).items():
        students = [line["result"]["training"]["student"] for line in group]
        teachers = [line["result"]["training"]["teacher"] for line in group]
        loads = [line["load"] for line in group if line["load"] is not None]
        rows.append(
            [
                task,
                size,
                f"{statistics.mean(t['seconds'] for t in teachers) / 60:.1f}",
                f"{statistics.mean(s['seconds'] for s in students) / 60:.1f}",
                f"{max(map(_minutes, group)):.1f}",
                str(students[0]["steps"]),
                f"{students[0]['padding']['saved']:.0%}",
                f"{max(loads):.1f}" if loads else "-",
            ]
        )
    machines = {line["machine"]["processor"].strip(): line["machine"] for line in lines}
    told = ", ".join(f"{name}, {one['logical_cores']} cores" for name, one in machines.items())
    return (
        f"## Training\n\nMinutes on the wall ({told}): means over seeds, and the longest that "
        "teacher and student of one seed took together. They are upper bounds: trainings shared "
        "the cores with each other and with other work. *Load* is how many processes wanted to "
        "run at the end. Padding saved: tokens that length-bucketed batches do without."
        f"\n\n{table(rows, numbers_from=2)}"
    )


def _minutes(line: _Line) -> float:
    """What one task and seed took to train: the teacher, where it had to be, and the student."""
    found = line["result"]["training"]
    return sum(found[who]["seconds"] for who in ("teacher", "student") if found[who]) / 60


def _speed(speed: _Line) -> str:
    head = ["Task", "Step", "Threads", "f32, s", "bf16, s", "Times faster", "Padding saved"]
    rows = [head]
    for row in speed["rows"]:
        ratio = row["ratio"]
        rows.append(
            [
                row["task"],
                row["step"],
                str(row["threads"]),
                *(f"{statistics.median(map(sum, row[one])):.2f}" for one in ("f32_s", "bf16_s")),
                f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
                f"{row['padding']['saved']:.0%}",
            ]
        )
    first = speed["rows"][0]
    return (
        "Made by `python benchmarks/compression.py --data DIR --speed` (every sample in "
        f"`benchmarks/results/compression-speed.json`): the same {first['batches']} batches of "
        f"{first['rows']} rows in f32 and under bf16 autocast, in turns; seconds on the wall, "
        "the median round; *times faster* with its 95 % interval over rounds. Fine-tuning is of "
        "MiniLM-L6, distillation of half of it, with the teacher's answers at hand as in "
        "training. Bucketing is apart from that: the share of an epoch's tokens that it saves.\n\n"
        f"{table(rows, numbers_from=2)}"
    )
