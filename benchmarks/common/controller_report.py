"""The page and the plot on controllers, from the finished lines alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["COUNTS", "draw", "markdown", "write_page"]

_Line = Mapping[str, Any]
COUNTS = (25, 50, 100, 200)
_COLOURS = {"nsga2": "#0b6e4f", "tpe": "#2563a8", "rnn": "#c2410c", "random": "#5a6270"}
_TITLES = {
    "free": "Without a limit",
    "limited": "With a limit: the median latency of the table",
}


def write_page(lines: Sequence[_Line], facts: Mapping[str, Any], docs: Path) -> None:
    """Write the page and its plot."""
    replace_text(docs / "controllers.md", markdown(lines, facts))
    draw(lines, docs / "controllers.svg")


def markdown(lines: Sequence[_Line], facts: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [
        "# Controllers",
        "Made by `python benchmarks/controllers.py` (raw numbers in "
        "`benchmarks/results/controllers.jsonl`). Every controller is asked for members of one "
        f"table: {facts['members']} architectures, of which latency was measured and accuracy "
        f"estimated ({facts['source']}). An evaluation is a look into the table, and no member "
        "comes twice. What counts is the hypervolume of the front that was found: the area, in "
        "points of accuracy times the logarithm of latency, that it dominates, as a share of what "
        "the whole table's front does. Each row is the mean over seeds; p is that of "
        "Mann-Whitney's one-sided test against random draws, at the same number of evaluations.",
    ]
    for setting, title in _TITLES.items():
        some = [line for line in lines if line["setting"] == setting]
        if some:
            seeds = len({line["seed"] for line in some})
            parts += [f"## {title}", f"{seeds} seeds.", _table(some)]
    parts.append(
        "![How the hypervolume grows](controllers.svg)\n\nBands are the middle half of the seeds."
    )
    return "\n\n".join(parts) + "\n"


def _table(lines: Sequence[_Line]) -> str:
    from scipy.stats import mannwhitneyu

    curves = _curves(lines)
    most = min(len(curve) for of in curves.values() for curve in of)
    counts = [count for count in COUNTS if count <= most]
    rows = []
    for name, of in curves.items():
        cells = [name]
        for count in counts:
            ours = [curve[count - 1] for curve in of]
            cells.append(f"{statistics.mean(ours):.1%}")
            if name == "random":
                cells.append("")
                continue
            theirs = [curve[count - 1] for curve in curves["random"]]
            p = float(mannwhitneyu(ours, theirs, alternative="greater").pvalue)
            cells.append(f"{p:.2g}")
        cells.append(f"{statistics.mean(statistics.mean(curve[:most]) for curve in of):.1%}")
        rows.append(cells)
    heads = [head for count in counts for head in (f"at {count}", "p")]
    return table([["controller", *heads, f"mean of 1 to {most}"], *rows], numbers_from=1)


def _curves(lines: Sequence[_Line]) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for line in lines:
        found.setdefault(line["controller"], []).append(line["curve"])
    return found


def draw(lines: Sequence[_Line], path: Path) -> None:
    """The share of the hypervolume over evaluations, a panel for each setting."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    settings = [name for name in _TITLES if any(line["setting"] == name for line in lines)]
    with mpl.rc_context({"svg.hashsalt": "canao", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(
            1,
            len(settings),
            figsize=(5.5 * len(settings), 3.6),
            squeeze=False,
            layout="constrained",
        )
        for axis, setting in zip(axes.flat, settings, strict=True):
            of = _curves([line for line in lines if line["setting"] == setting])
            for name, curves in of.items():
                most = min(map(len, curves))
                values = np.array([curve[:most] for curve in curves])
                places = np.arange(1, most + 1)
                axis.plot(places, values.mean(0), color=_COLOURS[name], label=name)
                low, high = np.quantile(values, (0.25, 0.75), axis=0)
                axis.fill_between(places, low, high, color=_COLOURS[name], alpha=0.15, lw=0)
            axis.set_title(_TITLES[setting], loc="left", fontweight="bold")
            axis.set_xlabel("evaluations")
            axis.set_ylabel("share of the hypervolume")
            axis.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
