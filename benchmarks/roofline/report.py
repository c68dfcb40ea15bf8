"""The page and the plot, made from the JSON alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.results import replace_text, table

__all__ = ["Held", "held", "markdown", "write_report"]

_Result = Mapping[str, Any]
_COLOURS = {"compute": "#0b6e4f", "weights": "#c28f2c", "caches": "#5a6270"}


@dataclass(frozen=True)
class Held:
    """A kernel against its roof; times in microseconds, the cost of a call taken off.

    ``bound`` says what would take longest on an ideal core: ``compute``, reading the ``weights``
    or passing the rest through the ``caches``; ``roof`` how long that is.
    """

    group: str
    name: str
    kind: str
    time: float
    roof: float
    bound: str
    rate: float
    """Of products and attention 10^9 operations a second, of others 10^9 bytes."""

    @property
    def share(self) -> float:
        """How much of the roof is reached."""
        return self.roof / self.time


def held(results: _Result) -> Iterator[Held]:
    """Every kernel that was timed, in order."""
    for group in results["groups"]:
        medians = _medians(group)
        roofs = _roofs(group, medians)
        for case in group["cases"]:
            if case["kind"] in ("call", "bandwidth", "peak") or case["name"] not in medians:
                continue
            peak = roofs.get(case["engine"])
            times = {
                "compute": case["multiply_adds"] * 2 / peak if peak else 0.0,
                "weights": case["far_bytes"] / roofs["far"],
                "caches": case["near_bytes"] / roofs["near"],
            }
            bound = max(times, key=lambda name: times[name])
            work = case["multiply_adds"] * 2 or case["near_bytes"]
            time = medians[case["name"]]
            yield Held(
                group=group["title"],
                name=case["name"],
                kind=case["kind"],
                time=time,
                roof=times[bound],
                bound=bound,
                rate=work / time / 1e3,
            )


def _medians(group: _Result) -> dict[str, float]:
    """Microseconds of each case without the call itself."""
    medians = {name: statistics.median(found) for name, found in group["rounds"].items()}
    call = medians.get("call", 0.0)
    return {
        name: max(time - call, 0.01) if name != "call" else time for name, time in medians.items()
    }


def _roofs(group: _Result, medians: Mapping[str, float]) -> dict[str, float]:
    """Operations of each engine and bytes from near and far, a microsecond."""
    found = {}
    for case in group["cases"]:
        if case["kind"] == "peak":
            found[case["engine"]] = case["multiply_adds"] * 2 / medians[case["name"]]
        elif case["kind"] == "bandwidth":
            size = case["near_bytes"] + case["far_bytes"]
            found[case["name"]] = size / medians[case["name"]]
    return found


def write_report(results: _Result, directory: Path) -> None:
    """Write ``kernels.md`` and ``kernels.svg`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    draw(results, directory / "kernels.svg")
    replace_text(directory / "kernels.md", markdown(results))


def markdown(results: _Result) -> str:
    """The whole page."""
    head = ["Kernel", "Microseconds", "Rate", "Roof", "Reached, %", "Bound by"]
    parts = [
        "# Kernels against the roof of the core",
        "Made by `python benchmarks/kernels.py`; the raw samples are in "
        "`benchmarks/results/kernels.json`. One core. Each kernel is timed by itself, in turns "
        "with the others of its table and with what it is held against: the same engine's "
        "instruction on registers alone, and reading memory in a line. The roof is the longest of "
        "three times: all multiplications at that peak; reading the weights from beyond the "
        "core's own caches, as in a model whose other layers passed by in between; passing "
        "activations and results through the second cache. Times are medians without the cost "
        "of an empty call; rates are GOP/s (two operations a multiply-add), or GB/s for kernels "
        "that only move rows.",
        "![Share of the roof that each kernel reaches](kernels.svg)",
    ]
    for group in results["groups"]:
        rows = [head]
        for one in held({"groups": [group]}):
            unit = "GB/s" if one.kind not in ("product", "attention") else "GOP/s"
            rows.append(
                [
                    one.name,
                    f"{one.time:.1f}",
                    f"{one.rate:.0f} {unit}",
                    f"{one.roof:.1f}",
                    f"{100 * one.share:.0f}",
                    one.bound,
                ]
            )
        if len(rows) > 1:
            parts += [f"## {group['title']}", table(rows, numbers_from=1), _roof_line(group)]
        parts += [f"- {name or 'timing'} is missing: {why}" for name, why in group["lost"].items()]
    parts += ["## The machine", _machine(results)]
    return "\n\n".join(parts) + "\n"


def _roof_line(group: _Result) -> str:
    medians = _medians(group)
    roofs = _roofs(group, medians)
    peaks = ", ".join(
        f"{name} {rate / 1e3:.0f} GOP/s"
        for name, rate in roofs.items()
        if name not in ("near", "far")
    )
    rounds = len(next(iter(group["rounds"].values()), []))
    return (
        f"Peaks: {peaks}; second cache {roofs['near'] / 1e3:.0f} GB/s, beyond it "
        f"{roofs['far'] / 1e3:.0f} GB/s; an empty call {medians['call']:.1f} microseconds. "
        f"{rounds} rounds, {group['discarded_rounds']} more discarded for drift."
    )


def _machine(results: _Result) -> str:
    machine = results["machine"]
    loads = [group["load"] for group in results["groups"]]
    return "\n".join(
        [
            f"- {results['date']}",
            f"- {machine['processor']} (family/model/stepping "
            f"{machine['family_model_stepping']}), {machine['logical_cores']} cores, "
            f"{machine['architecture']}, {machine['system']}",
            f"- features: {', '.join(machine['features'])}",
            f"- load average before each table: {min(loads)} to {max(loads)}",
        ]
    )


def draw(results: _Result, path: Path) -> None:
    """A panel for each group, a bar for each kernel: the share of its roof."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, list[Held]] = {}
    for one in held(results):
        panels.setdefault(one.group, []).append(one)
    longest = max((len(found) for found in panels.values()), default=1)
    columns = 2
    rows = max(1, -(-len(panels) // columns))
    with mpl.rc_context({"svg.hashsalt": "canao", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(13, rows * (0.9 + 0.2 * longest)),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, (title, found) in zip(axes.flat, panels.items(), strict=False):
            _panel(axis, title, found)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _panel(axis: Any, title: str, found: list[Held]) -> None:
    for row, one in enumerate(found):
        axis.barh(row, 100 * one.share, 0.7, color=_COLOURS[one.bound])
        axis.text(100 * one.share + 1, row, f"{one.time:.3g} us", va="center", fontsize=7)
    axis.set_yticks(range(len(found)), [one.name for one in found], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, max(110.0, *(100 * one.share + 15 for one in found)))
    axis.axvline(100, color="black", linewidth=0.6)
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel("% of the roof (green: compute, ochre: weights, grey: caches)", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
