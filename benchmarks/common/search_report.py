"""The page on searched models, from the finished lines and the last measurement."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["markdown", "write_page"]

_Line = Mapping[str, Any]


def write_page(lines: Sequence[_Line], times: Path, path: Path) -> None:
    """Write the page; nothing where nothing was found yet."""
    measured = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else None
    text = markdown(lines, measured)
    if text:
        replace_text(path, text)


def markdown(lines: Sequence[_Line], times: _Line | None) -> str:
    """The whole page; empty where there is no finished search."""
    searches = [line for line in lines if line["kind"] == "search"]
    if not searches:
        return ""
    parts = [
        "# What `canao search` finds, beside LiteRT running the teacher",
        "Made by `python benchmarks/searched.py --data DIR` (one search a task, at 128 tokens, "
        "and what it found trained with each other seed) and `--measure` (LiteRT's f32 running "
        "the fine-tuned MiniLM-L6 and the found bundle, in turns, one thread, 128 tokens, from "
        "token ids to logits; 95 % interval; and the metric of each seed's bundle, run on the "
        "device over the whole development split). Lines are in "
        "`benchmarks/results/searched.jsonl`, samples in `benchmarks/results/searched.json`.",
    ]
    for line in searches:
        parts += [
            f"## {line['task']}",
            *_found(line),
            *_seeds(line, lines, _of(line["task"], times)),
        ]
        parts += _raced(_of(line["task"], times))
    return "\n\n".join(parts) + "\n"


def _found(line: _Line) -> list[str]:
    result = line["result"]
    best, teacher = result["best"], result["teacher"]
    layers = best["architecture"]["layers"]
    return [
        f"Asked for at most {line['latency']} and a loss of at most {line['max_loss']}; "
        f"{result['trials']} trials ({line['work']['trials_s'] / 60:.1f} minutes, "
        f"{line['work']['overhead_s'] / line['work']['trials_s']:.1%} of it outside of "
        f"evaluation), {line['seconds'] / 60:.0f} minutes in all; the fine-tuned "
        f"teacher has {teacher['metric']:.2f} ({teacher['name']}). Found: {len(layers)} layers of "
        f"width {best['architecture']['hidden']}, {best['params'] / 1e6:.1f} million parameters, "
        f"{best['latency_ms']:.3g} ms (at most {best['latency_interval'][1]:.3g}; predicted "
        f"{best['predicted_ms']:.3g})."
    ]


def _of(task: str, times: _Line | None) -> _Line | None:
    return next((one for one in (times or {}).get("tasks", ()) if one["task"] == task), None)


def _seeds(search: _Line, lines: Sequence[_Line], measured: _Line | None) -> list[str]:
    result = search["result"]
    scores = (measured or {}).get("scores", {})
    rows = [["Seed", "Teacher", "Found, in PyTorch", "Loss", "Bundle, on the device", "Loss"]]
    losses, there = [], []
    pairs = [(0, result["teacher"]["metric"], result["best"]["accuracy"])]
    pairs += [
        (line["seed"], line["result"]["before"]["metric"], line["result"]["after"]["metric"])
        for line in lines
        if line["kind"] == "trained" and line["task"] == search["task"]
    ]
    for seed, before, after in sorted(pairs):
        losses.append(before - after)
        row = [str(seed), f"{before:.2f}", f"{after:.2f}", f"{before - after:+.2f}"]
        score = scores.get(str(seed))
        if score is not None:
            there.append(before - score)
        rows.append(
            row + (["-", "-"] if score is None else [f"{score:.2f}", f"{before - score:+.2f}"])
        )
    mean = f"Mean loss of {len(losses)} seeds: {statistics.mean(losses):+.2f} points in PyTorch"
    mean += f", {statistics.mean(there):+.2f} on the device." if len(there) == len(losses) else "."
    refused = [
        f"Of seed {seed} there is a bundle only with a lower `--cosine`; without, it is refused: "
        f"{reason}"
        for seed, reason in (measured or {}).get("refused", {}).items()
    ]
    return [table(rows, numbers_from=1), mean, *refused]


def _raced(found: _Line | None) -> list[str]:
    if found is None:
        return []
    peer, ours = found["entries"]
    if found["ratio"] is None:
        return [f"Not timed: {peer['reason'] or ours['reason']}"]
    ratio = found["ratio"]
    return [
        f"LiteRT f32 running the teacher takes {peer['median_ms']:.3g} ms, the found model "
        f"{ours['median_ms']:.3g} ms: {ratio['value']:.2f} times faster ({ratio['low']:.2f} to "
        f"{ratio['high']:.2f}), on {found['machine']['processor']} "
        f"({found['machine']['family_model_stepping']})."
    ]
