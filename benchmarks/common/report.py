"""The results as a Markdown page with a plot, made from the JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["markdown", "write_report"]

_Result = Mapping[str, Any]
_PRECISIONS = ("f32", "bf16", "f16", "int8")


def write_report(results: _Result, directory: Path) -> None:
    """Write ``peers.md`` and ``peers.svg`` into ``directory``."""
    from .plot import draw

    directory.mkdir(parents=True, exist_ok=True)
    draw(results, directory / "peers.svg")
    replace_text(directory / "peers.md", markdown(results))


def markdown(results: _Result) -> str:
    """The whole page."""
    return (
        "\n\n".join(
            [
                "# canao beside its peers",
                _introduction(results),
                "![Median time of one inference](peers.svg)",
                "## Time of one inference\n\nMedian, in milliseconds; lower is better.",
                _times(results),
                "## How many times faster canao is",
                "The peer's time over canao's, with a 95 % interval. *At least as fast* means "
                "that the interval reaches 1.0. Each of canao's precisions is set against the "
                "same precision of a peer, or against its f32 where it has no such precision.",
                _ratios(results),
                "## How close the answers are\n\n"
                "Against PyTorch in f32: the largest error of a logit relative to the largest "
                "logit, and the smallest cosine, over three inputs (no padding, a quarter padded, "
                "mostly padding).",
                _closeness(results),
                *_left_out(results),
                "## The machine and the software",
                _machine(results),
            ]
        )
        + "\n"
    )


def _introduction(results: _Result) -> str:
    turns = results["turns"]
    return (
        "Made by `python benchmarks/peers.py` (`make bench` runs it; the raw samples are in "
        "`benchmarks/results/peers.json`). From token ids and mask to the start and end logits "
        "of a question-answering head, batch 1, copying inputs and outputs included. Everyone "
        "runs the same weights, in a process of its own on the same pinned cores, one at a time; "
        f"{turns['rounds']} rounds, the order drawn anew in each. Logits are compared with "
        "PyTorch's first: who is wrong is not timed. Models marked * have random weights, so "
        "only their times mean something."
    )


def _times(results: _Result) -> str:
    columns = _columns(results)
    rows = [["Model", "Tokens", "Threads", *(label for _, label in columns)]]
    for configuration in results["configurations"]:
        entries = {entry["name"]: entry for entry in configuration["entries"]}
        timed = [e["median_ms"] for e in entries.values() if e["status"] == "timed"]
        row = _where(configuration)
        for name, _ in columns:
            entry = entries.get(name)
            if entry is None:
                row.append("")
            elif entry["status"] != "timed":
                row.append(entry["status"])
            else:
                text = f"{entry['median_ms']:.3g}"
                row.append(f"**{text}**" if entry["median_ms"] == min(timed) else text)
        rows.append(row)
    return table(rows, numbers_from=1)


def _ratios(results: _Result) -> str:
    rows = [["Model", "Tokens", "Threads", "canao", "Peer", "Times faster", "At least as fast"]]
    for configuration in results["configurations"]:
        entries = {entry["name"]: entry for entry in configuration["entries"]}
        for ratio in configuration["ratios"]:
            ours, theirs = entries[ratio["ours"]], entries[ratio["theirs"]]
            if not _comparable(ours, theirs, configuration["entries"]):
                continue
            interval = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            verdict = "yes" if ratio["high"] >= 1.0 else "no"
            rows.append(
                [*_where(configuration), ours["precision"], _label(theirs), interval, verdict]
            )
    return table(rows, numbers_from=1) if len(rows) > 1 else "canao was not part of this run."


def _comparable(ours: _Result, theirs: _Result, entries: list[_Result]) -> bool:
    offered = {e["precision"] for e in entries if e["title"] == theirs["title"]}
    wanted = ours["precision"] if ours["precision"] in offered else "f32"
    return bool(theirs["precision"] == wanted)


def _closeness(results: _Result) -> str:
    columns = _columns(results)
    rows = [["Model", "Tokens", *(label for _, label in columns)]]
    seen = set()
    for configuration in results["configurations"]:
        where = _where(configuration)[:2]
        if tuple(where) in seen:
            continue
        seen.add(tuple(where))
        entries = {entry["name"]: entry for entry in configuration["entries"]}
        cells = [_close(entries.get(name)) for name, _ in columns]
        rows.append([*where, *cells])
    return table(rows, numbers_from=1)


def _close(entry: _Result | None) -> str:
    if entry is None or entry["cosine"] is None:
        return ""
    if entry["precision"] == "f32":
        return f"{entry['max_rel_err']:.0e}"
    return f"{entry['max_rel_err']:.0e}, {entry['cosine']:.4f}"


def _left_out(results: _Result) -> list[str]:
    lines = []
    for configuration in results["configurations"]:
        for entry in configuration["entries"]:
            if entry["status"] != "timed":
                where = ", ".join(_where(configuration))
                lines.append(f"- {where}: {_label(entry)} {entry['status']}: {entry['reason']}")
    return ["## Not timed", "\n".join(lines)] if lines else []


def _machine(results: _Result) -> str:
    machine = results["machine"]
    peaks = [
        c[when]["peak_gflops"]
        for c in results["configurations"]
        if c["threads"] == 1
        for when in ("before", "after")
    ]
    settings = sorted(
        {
            f"{c['title']} {c['seq_len']}: {e['info']['setting']}"
            for c in results["configurations"]
            for e in c["entries"]
            if "setting" in e["info"]
        }
    )
    loads = [c["before"]["load"] for c in results["configurations"]]
    shares = [
        entry["cpu_per_wall"]
        for c in results["configurations"]
        for entry in c["entries"]
        if c["threads"] == 1 and entry["status"] == "timed"
    ]
    lines = [
        f"- {results['date']}; {results.get('seconds', 0) / 60:.0f} minutes",
        f"- {machine['processor']} (family/model/stepping {machine['family_model_stepping']}), "
        f"{machine['logical_cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['architecture']}, {machine['system']}",
        f"- features: {', '.join(machine['features'])}",
        f"- load average before each configuration: {min(loads)} to {max(loads)}",
    ]
    if peaks:
        lines.append(
            f"- one core's f32 peak (1024 x 1024 x 1024 product in PyTorch), before and after "
            f"each configuration: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s"
        )
    if shares:
        lines.append(
            f"- share of its core that each contestant had at one thread: {min(shares):.0%} or "
            "more (near 100 % unless something else was running)"
        )
    for environment, versions in results["versions"].items():
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"- {environment} environment: {listed}")
    if settings:
        lines.append(f"- fastest setting of stock IREE: {'; '.join(settings)}")
    return "\n".join(lines)


def _columns(results: _Result) -> list[tuple[str, str]]:
    """(name, label) of everyone in the results: ours first, then by title."""
    entries = {e["name"]: e for c in results["configurations"] for e in c["entries"]}
    ordered = sorted(
        entries.values(),
        key=lambda e: (not e["ours"], e["title"].lower(), _PRECISIONS.index(e["precision"])),
    )
    return [(entry["name"], _label(entry)) for entry in ordered]


def _label(entry: _Result) -> str:
    return f"{entry['title']} {entry['precision']}"


def _where(configuration: _Result) -> list[str]:
    star = " *" if configuration["random_weights"] else ""
    return [
        f"{configuration['title']}{star}",
        str(configuration["seq_len"]),
        str(configuration["threads"]),
    ]
