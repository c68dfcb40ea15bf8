"""How well measurements repeat: ratios and medians of the same bundles, again and again.

    python benchmarks/measuring.py [--repeats 10] [--more 0] [--json FILE]

MiniLM is compiled in f32 and in int8, and measured five times, so that canao knows how fast the
machine usually is, by which a verdict is told. Then, each time in a process of its own:
``canao bench F32`` and ``canao bench F32 --compare INT8``, in turns. At last the same beside a
process that keeps the same core busy, where the verdict must be "unstable". Where the machine's
pace wanders, few are stable: ``--more 30`` adds as many plain ones to what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.machine import choose_cpus, load_average, machine_record
from common.options import add_outputs
from common.results import replace_text, table, write_json
from common.stats import significant

import canao

__all__ = ["main"]

_CANAO = Path(sys.executable).parent / "canao"
# What a measurement is told by here; all its samples stay out, there are thousands.
_KEPT = ("median_ms", "interval", "p90_ms", "relative", "relative_interval", "stable", "reason")
_BUSY = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1:]))\nwhile True: pass"
_RATIOS_AGREE, _MEDIANS_AGREE = 0.02, 0.03
_BEFORE = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page, which say whether the goals are met."""
    options = _parser().parse_args(arguments)
    if options.more:
        results = json.loads(options.json.read_text(encoding="utf-8"))
    else:
        results = {
            "schema": 1,
            "kind": "measuring",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine_record(),
            "model": "minilm",
            "seq_len": options.seq_len,
            "threads": options.threads,
            "cores": choose_cpus(options.threads),
            **{what: [] for what in ("before", "plain", "compared", "busy")},
        }
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        names = ("f32",) if options.more else ("f32", "int8")
        bundles = [Path(folder, f"{name}.canao") for name in names]
        for bundle in bundles:
            canao.compile(
                "minilm",
                target="host",
                seq_len=results["seq_len"],
                precision=bundle.stem,
                output=bundle,
            )
        if options.more:
            _more(results, bundles, options.more)
        else:
            _all(results, bundles, options)
    results["summary"] = summary(results)
    write_json(options.json, results)
    if options.docs:
        replace_text(options.docs / "measuring.md", markdown(results))
    for name, goal in results["summary"].items():
        _tell(f"{name}: {'met' if goal['met'] else 'MISSED'} {goal}")
    return 0


def _all(results: dict[str, Any], bundles: Sequence[Path], options: argparse.Namespace) -> None:
    """What the module's docstring says, in its order."""
    threads, cores = results["threads"], results["cores"]
    for _ in range(_BEFORE):
        results["before"].append(_bench(bundles[:1], threads, cores))
    for repeat in range(options.repeats):
        results["plain"].append(_bench(bundles[:1], threads, cores))
        results["compared"].append(_bench(bundles, threads, cores))
        _tell(f"{repeat + 1} of {options.repeats}: {_line(results)}")
        write_json(options.json, results)
    with _busy(cores):
        results["busy"] = [_bench(bundles[:1], threads, cores) for _ in range(3)]


def _more(results: dict[str, Any], bundles: Sequence[Path], count: int) -> None:
    """More plain measurements, beside those that are there."""
    for number in range(count):
        found = _bench(bundles, results["threads"], results["cores"])
        results["plain"].append(found)
        _tell(
            f"{number + 1} of {count}: {found['median_ms']:.2f} ms ({_verdict(found['stable'])})"
        )


def summary(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The three goals: how far ratios and stable medians spread, and the verdicts when busy."""
    ratios = [run["ratio"] for run in results["compared"]]
    medians = [run["median_ms"] for run in results["plain"] if run["stable"]]
    relative = [run["relative"] for run in results["plain"] if run["stable"]]
    busy = [run["stable"] for run in results["busy"]]
    return {
        "ratios": {"spread": _spread(ratios), "met": _within(ratios, _RATIOS_AGREE)},
        "medians": {
            "spread": _spread(medians),
            "spread_of_relative": _spread(relative),
            "stable": len(medians),
            "met": _within(medians, _MEDIANS_AGREE),
        },
        "busy": {"unstable": busy.count(False), "runs": len(busy), "met": not any(busy)},
    }


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    found, machine = results["summary"], results["machine"]
    rows = [["Run", "Median, ms", "Of the reference", "Verdict", "Ratio", "Verdict of it"]]
    pairs = itertools.zip_longest(results["plain"], results["compared"])
    for number, (plain, both) in enumerate(pairs, 1):
        row = [
            str(number),
            f"{plain['median_ms']:.2f}",
            f"{plain['relative']:.3f}",
            _verdict(plain["stable"]),
        ]
        if both is None:
            rows.append([*row, "", ""])
            continue
        low, high = both["ratio_interval"]
        ratio = f"{both['ratio']:.4f} ({low:.4f} to {high:.4f})"
        rows.append([*row, ratio, _verdict(both["ratio_stable"])])
    extra = len(results["plain"]) - len(results["compared"])
    more = f", then with `--more {extra}`" if extra else ""
    reasons = sorted({run["reason"] for run in results["plain"] if not run["stable"]})
    goals = [
        ["What", "Found", "Goal"],
        [
            f"ratios of {len(results['compared'])} comparisons spread by",
            _percent(found["ratios"]["spread"]),
            f"{_RATIOS_AGREE:.0%}",
        ],
        [
            f"medians of the {found['medians']['stable']} of {len(results['plain'])} measurements "
            "that were stable spread by",
            _percent(found["medians"]["spread"]),
            f"{_MEDIANS_AGREE:.0%}",
        ],
        [
            "their times relative to the reference spread by",
            _percent(found["medians"]["spread_of_relative"]),
            "",
        ],
        [
            "beside a busy process, verdicts that say unstable",
            f"{found['busy']['unstable']} of {found['busy']['runs']}",
            "all",
        ],
    ]
    parts = [
        "# How well measurements repeat",
        f"Made by `python benchmarks/measuring.py`{more}; every run is in "
        "`benchmarks/results/measuring.json`. MiniLM at "
        f"{results['seq_len']} tokens, {results['threads']} thread(s), on the host; each run is a "
        "`canao bench` in a process of its own, by the protocol in [measuring](../measuring.md). "
        "The ratio is the time of the int8 bundle over that of the f32 one. A spread is the "
        "largest value less the smallest, over their median.",
        table(goals, numbers_from=1),
        "## Every run",
        table(rows, numbers_from=1),
    ]
    if reasons:
        parts += ["Why measurements were unstable:", "\n".join(f"- {text}" for text in reasons)]
    parts += [
        "## Beside a busy process",
        "\n".join(f"- {run['median_ms']:.2f} ms: {run['reason']}" for run in results["busy"]),
        f"{results['date']}, {machine['processor']} (family/model/stepping "
        f"{machine['family_model_stepping']}), {machine['logical_cores']} cores, "
        f"{machine['system']}, Python {machine['python']}; load average before each run "
        f"{min(_loads(results))} to {max(_loads(results))}.",
    ]
    return "\n\n".join(parts) + "\n"


def _bench(bundles: Sequence[Path], threads: int, cores: Sequence[int]) -> dict[str, Any]:
    command = [
        str(_CANAO),
        *("bench", str(bundles[0]), "--threads", str(threads), "--json"),
        *("--cores", ",".join(map(str, cores))),
    ]
    for other in bundles[1:]:
        command += ["--compare", str(other)]
    load = load_average()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    kept = {key: found[key] for key in _KEPT} | {"load": load}
    kept["reference_ms"] = found["reference"]["median_ms"]
    if "compare" in found:
        compared = found["compare"]
        kept |= {
            "ratio": compared["ratio"],
            "ratio_interval": compared["interval"],
            "ratio_stable": compared["stable"],
            "ratio_reason": compared["reason"],
            "other": {key: compared["measurement"][key] for key in _KEPT},
        }
    return kept


@contextlib.contextmanager
def _busy(cores: Sequence[int]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", _BUSY, *map(str, cores)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _spread(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return significant((max(values) - min(values)) / statistics.median(values))


def _within(values: Sequence[float], limit: float) -> bool:
    spread = _spread(values)
    return spread is not None and spread <= limit


def _percent(spread: float | None) -> str:
    return "not known" if spread is None else f"{spread:.2%}"


def _loads(results: dict[str, Any]) -> list[float]:
    runs = [*results["plain"], *results["compared"]]
    return [run["load"] for run in runs if run["load"] is not None] or [0.0]


def _verdict(stable: bool) -> str:
    return "stable" if stable else "unstable"


def _line(results: dict[str, Any]) -> str:
    plain, both = results["plain"][-1], results["compared"][-1]
    return (
        f"{plain['median_ms']:.2f} ms ({_verdict(plain['stable'])}), "
        f"{plain['relative']:.3f} of the reference, ratio {both['ratio']:.4f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--more", type=int, default=0, help="only so many plain ones more")
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    add_outputs(parser, "measuring.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
