"""The page on weight sharing, from the finished lines alone."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["append", "markdown", "read_lines", "write_page"]

_Line = Mapping[str, Any]
_WHAT = {
    "shared": "shared weights",
    "adapted": "shared weights, then {steps} steps",
}


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a file, at once and for good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The finished lines; one that a killed process left half-written does not count."""
    found = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
    return found


def write_page(lines: Sequence[_Line], path: Path) -> None:
    """Write the page; nothing where too little was found."""
    text = markdown(lines)
    if text:
        replace_text(path, text)


def markdown(lines: Sequence[_Line]) -> str:
    """The whole page; empty where fewer than three architectures were trained."""
    kinds: dict[str, dict[str, _Line]] = {}
    for line in lines:
        kinds.setdefault(line["kind"], {})[line["digest"]] = line
    trained = kinds.get("trained", {})
    if len(trained) < 3:
        return ""
    return (
        "\n\n".join(
            [
                "# Do shared weights order architectures as training does?",
                "Made by `python benchmarks/weight_sharing.py --data DIR` (raw numbers in "
                "`benchmarks/results/weight-sharing.jsonl`, options in "
                "`benchmarks/recipes/training-agreement.toml`). Architectures are drawn from all "
                "sub-networks of MiniLM-L6, fine-tuned on SST-2. Each is judged on the same rows, "
                "a tenth of the training split that no weight is trained on; dev says what the "
                "trained ones reach on rows that chose no checkpoint either. Correlations are of "
                "ranks, with 95 % intervals from drawing the architectures again. Seconds are of "
                "one core.",
                _correlations(kinds, trained),
                _accuracies(kinds, trained),
            ]
        )
        + "\n"
    )


def _correlations(kinds: Mapping[str, Mapping[str, _Line]], trained: Mapping[str, _Line]) -> str:
    from canao.search.accuracy.agreement import agreement

    rows = [["judged by", "beside", "n", "Spearman", "Kendall", "seconds each"]]
    for kind, found in kinds.items():
        both = [digest for digest in trained if digest in found and kind in _WHAT]
        if len(both) < 3:
            continue
        steps = found[both[0]]["steps"]
        cheap = [found[digest]["accuracy"]["value"] for digest in both]
        seconds = statistics.median(found[digest]["cpu_seconds"] for digest in both)
        for what, dear in (
            ("trained, rows held out", [trained[d]["accuracy"]["value"] for d in both]),
            ("trained, dev", [trained[d]["dev"] for d in both]),
        ):
            one = agreement(cheap, dear)
            rows.append(
                [
                    _WHAT[kind].format(steps=steps),
                    what,
                    str(one.n),
                    _with(one.spearman, one.spearman_interval),
                    _with(one.kendall, one.kendall_interval),
                    f"{seconds:.1f}",
                ]
            )
    return table(rows, numbers_from=2)


def _accuracies(kinds: Mapping[str, Mapping[str, _Line]], trained: Mapping[str, _Line]) -> str:
    rows = [["layers", "hidden", "tokens", "GFLOP", "shared", "adapted", "trained", "dev"]]
    order = sorted(trained.values(), key=lambda line: -line["accuracy"]["value"])
    for line in order:
        from canao.search.space.architecture import Architecture

        one = Architecture.from_json(line["architecture"])
        cells = [
            f"{kinds[kind][line['digest']]['accuracy']['value']:.2f}"
            if line["digest"] in kinds.get(kind, {})
            else ""
            for kind in _WHAT
        ]
        rows.append(
            [
                str(len(one.layers)),
                str(one.hidden),
                str(one.seq_len),
                f"{one.costs().flops / 1e9:.2f}",
                *cells,
                f"{line['accuracy']['value']:.2f}",
                f"{line['dev']:.2f}",
            ]
        )
    return table(rows, numbers_from=0)


def _with(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
