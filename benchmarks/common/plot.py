"""The plot of a comparison: a panel per model and length, a bar per contestant and threads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw"]

_OURS = ("#0b6e4f", "#7fc8a9")  # one thread, then more
_OTHERS = ("#5a6270", "#b9c0ca")
_COLUMNS = 2


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw all configurations into ``path``; its suffix chooses the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for configuration in results["configurations"]:
        panels.setdefault((configuration["title"], configuration["seq_len"]), []).append(
            configuration
        )
    rows = -(-len(panels) // _COLUMNS)
    names = {e["name"] for c in results["configurations"] for e in c["entries"]}
    # The same file for the same results: ids come from a fixed salt, and no date goes in.
    with mpl.rc_context({"svg.hashsalt": "canao", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(
            rows,
            _COLUMNS,
            figsize=(11, rows * (0.9 + 0.36 * len(names))),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, ((title, seq_len), configurations) in zip(
            axes.flat, panels.items(), strict=False
        ):
            _panel(axis, configurations)
            axis.set_title(f"{title}, {seq_len} tokens", loc="left", fontweight="bold")
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, metadata=metadata)
        plt.close(figure)


def _panel(axis: Any, configurations: list[Mapping[str, Any]]) -> None:
    entries = {
        (e["name"], c["threads"]): e
        for c in configurations
        for e in c["entries"]
        if e["status"] == "timed"
    }
    threads = sorted({c["threads"] for c in configurations})
    labels = {e["name"]: f"{e['title']} {e['precision']}" for e in entries.values()}
    fastest_first = sorted(
        labels, key=lambda n: min(e["median_ms"] for (m, _), e in entries.items() if m == n)
    )
    height = 0.8 / len(threads)
    longest = max((_spread(e)[1] for e in entries.values()), default=1.0)
    for row, name in enumerate(fastest_first):
        for position, count in enumerate(threads):
            entry = entries.get((name, count))
            if entry is None:
                continue
            shades = _OURS if entry["ours"] else _OTHERS
            y = row + (position - (len(threads) - 1) / 2) * height
            axis.barh(y, entry["median_ms"], height, color=shades[min(position, 1)])
            low, high = _spread(entry)
            axis.plot([low, high], [y, y], color="black", linewidth=0.8)
            axis.text(
                max(high, entry["median_ms"]) + longest * 0.012,
                y,
                f"{entry['median_ms']:.3g}",
                va="center",
                fontsize=7.5,
            )
    axis.set_yticks(range(len(fastest_first)), [labels[name] for name in fastest_first])
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.12)
    shades = ("dark", "light")
    counts = ", ".join(
        f"{shades[min(position, 1)]}: {count} thread{'s' if count > 1 else ''}"
        for position, count in enumerate(threads)
    )
    axis.set_xlabel(f"milliseconds ({counts})", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _spread(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The 10th and the 90th percentile of all calls."""
    calls = [sample for samples in entry["rounds"] for sample in samples]
    if len(calls) < 2:
        return calls[0], calls[0]
    deciles = statistics.quantiles(calls, n=10, method="inclusive")
    return deciles[0], deciles[-1]
