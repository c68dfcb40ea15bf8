"""What compiling and loading cost, and what a session adds to IREE's own benchmark tool.

    python benchmarks/compile_time.py [--models minilm,bert-base] [--seq-len 128] [--runs 3]
                                      [--precisions f32,bf16,int8] [--json FILE]

For each model, ``canao compile`` for this machine in a process of its own: wall time, CPU
time and peak memory, with an empty cache and again with what that left there; the precisions
take turns. Then for each the time to load the bundle in fresh processes, and calls of a session
in turns with
``iree-benchmark-module`` on the same module and inputs.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.machine import choose_cpus, load_average, machine_record
from common.measured import Cost, run_measured, run_script
from common.models import MODELS, materialize
from common.options import add_outputs, one_of, whole_numbers
from common.paths import cache_directory
from common.results import replace_text, table, write_json
from common.stats import significant

__all__ = ["main"]

_LOAD_PROCESSES = 5
_LOAD = """
import json, os, sys, time
path, cpus = sys.argv[1], json.loads(sys.argv[2])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cpus)
marks = [time.perf_counter()]
import canao
marks.append(time.perf_counter())
session = canao.load(path, device="local", threads=len(cpus))
marks.append(time.perf_counter())
ids = [[2000] * session.seq_lens[-1]]
session(input_ids=ids)
marks.append(time.perf_counter())
session(input_ids=ids)
marks.append(time.perf_counter())
names = ("import_s", "load_s", "first_call_s", "second_call_s")
print(json.dumps(dict(zip(names, (b - a for a, b in zip(marks, marks[1:]))))))
"""
_ROUNDS = 7
_CALLS = 25
_OVERHEAD = """
import json, os, sys, time
path, cpus, rounds, calls = sys.argv[1], *map(json.loads, sys.argv[2:])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cpus)
import numpy as np
import canao
from canao.runtime_harness.devices import get
from canao.runtime_harness.tensors import numpy_dtype, shape_of
device, bundle = get("local"), canao.Bundle.open(path)
module = bundle.module(bundle.targets[0])
inputs = {}
for spec in bundle.manifest.inputs:
    value = 2000 if spec.name == "input_ids" else 0 if spec.name == "token_type_ids" else 1
    inputs[spec.name] = np.full(shape_of(spec, module), value, numpy_dtype(spec.dtype))
session = canao.load(bundle, device="local", threads=len(cpus))
def ours():
    for _ in range(3):
        session(**inputs)
    samples = []
    for _ in range(calls):
        started = time.perf_counter()
        session(**inputs)
        samples.append((time.perf_counter() - started) * 1e3)
    return samples
def tool():
    timing = device.bench(
        bundle, module, inputs, threads=len(cpus), repetitions=calls, warmup=3, timeout=600
    )
    return list(timing.samples_ms)
print(json.dumps([[ours(), tool()] for _ in range(rounds)]))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page."""
    options = _parser().parse_args(arguments)
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "compile-time",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "models": [],
    }
    for name in options.models:
        for seq_len in options.seq_len:
            results["models"] += _measure(name, seq_len, options.precisions, options.runs)
            write_json(options.json, results)
    if options.docs:
        replace_text(options.docs / "compile-time.md", markdown(results))
    return 0


def _measure(
    name: str, seq_len: int, precisions: Sequence[str], runs: int
) -> list[dict[str, Any]]:
    """One row of results for each precision."""
    model = materialize(name, cache_directory())
    load = load_average()
    costs: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as scratch:
        for state in ("cold", "warm"):
            for run in range(runs):
                for precision in precisions:
                    # What the first run leaves behind is the full cache of the warm ones.
                    place = Path(scratch, f"{precision}{run if state == 'cold' else 0}")
                    output = Path(scratch, f"{precision}.canao")
                    cost = _compile(model.directory, seq_len, precision, place, output)
                    costs.setdefault((precision, state), []).append(cost)
                    _tell(f"{model.title}, {precision}, {state} cache: {cost.wall_s:.1f} s")
        return [
            {
                "model": name,
                "title": model.title,
                "seq_len": seq_len,
                "precision": precision,
                "load": load,
                **{
                    state: [cost.to_json() for cost in costs[precision, state]]
                    for state in ("cold", "warm")
                },
                **_run(f"{model.title}, {precision}", Path(scratch, f"{precision}.canao")),
            }
            for precision in precisions
        ]


def _run(title: str, bundle: Path) -> dict[str, Any]:
    """Loading and calling."""
    loads = [run_script(_LOAD, bundle, choose_cpus(1)) for _ in range(_LOAD_PROCESSES)]
    _tell(f"{title}: loads in {_median(loads, 'load_s'):.3f} s")
    called = []
    for threads in (1, 2):
        rounds = run_script(_OVERHEAD, bundle, choose_cpus(threads), _ROUNDS, _CALLS)
        called.append(_calls(threads, rounds))
        _tell(f"{title}, {threads} thread(s): {called[-1]['overhead_ms']} ms")
    return {
        "bytes": bundle.stat().st_size,
        "loading": [{k: significant(v) for k, v in load.items()} for load in loads],
        "calls": called,
    }


def _compile(model: Path, seq_len: int, precision: str, cache: Path, output: Path) -> Cost:
    program = Path(sys.executable).with_name("canao")
    command = [str(program), "compile", str(model), "--target", "host", "--json"]
    command += ["--seq-len", str(seq_len), "--precision", precision, "-o", str(output)]
    cache.mkdir(exist_ok=True)
    return run_measured(command, {"CANAO_CACHE_DIR": str(cache)})


def _calls(threads: int, rounds: list[list[list[float]]]) -> dict[str, Any]:
    """Medians of both, and the median over rounds of the difference, in milliseconds."""
    medians = [[statistics.median(samples) for samples in sides] for sides in rounds]
    return {
        "threads": threads,
        "session_ms": significant(statistics.median(ours for ours, _ in medians)),
        "tool_ms": significant(statistics.median(tool for _, tool in medians)),
        "overhead_ms": significant(statistics.median(ours - tool for ours, tool in medians), 2),
        "rounds": [[[significant(x) for x in samples] for samples in sides] for sides in rounds],
    }


def markdown(results: dict[str, Any]) -> str:
    """The page made of the results."""
    machine = results["machine"]
    compiling = [
        [
            *("Model", "Tokens", "Precision", "Cache", "Wall, s", "CPU, s", "To f32's"),
            *("Peak memory, GB", "Bundle, MB"),
        ]
    ]
    loading = [
        [
            *("Model", "Tokens", "Precision", "import canao, s", "Load, s"),
            *("First call, ms", "Second, ms"),
        ]
    ]
    calling = [
        [
            *("Model", "Tokens", "Precision", "Threads", "Session, ms", "IREE's tool, ms"),
            "Overhead, ms",
        ]
    ]
    for model in results["models"]:
        where = [model["title"], str(model["seq_len"]), model["precision"]]
        for state in ("cold", "warm"):
            wall, cpu, peak = (
                _median(model[state], key) for key in ("wall_s", "cpu_s", "tree_peak_bytes")
            )
            numbers = [f"{wall:.1f}", f"{cpu:.1f}", _ratio(results, model, state)]
            numbers += [f"{peak / 1e9:.2f}", f"{model['bytes'] / 1e6:.0f}"]
            compiling.append([*where, state, *numbers])
        names = ("import_s", "load_s", "first_call_s", "second_call_s")
        imported, loaded, first, second = (_median(model["loading"], key) for key in names)
        numbers = [f"{imported:.3f}", f"{loaded:.3f}", f"{first * 1e3:.3g}"]
        loading.append([*where, *numbers, f"{second * 1e3:.3g}"])
        for calls in model["calls"]:
            numbers = [f"{calls[key]:.3g}" for key in ("session_ms", "tool_ms", "overhead_ms")]
            calling.append([*where, str(calls["threads"]), *numbers])
    parts = [
        "# What compiling and loading cost",
        "Made by `python benchmarks/compile_time.py`; every run is in "
        "`benchmarks/results/compile-time.json`. BERT models with a question-answering head, "
        "for the machine itself; medians.",
        "## Compiling\n\n`canao compile MODEL --target host`, including its check against "
        "PyTorch, in a process of its own; the precisions in turns. *To f32's* is the median "
        "ratio of wall times within a turn. Memory is that of all its processes together.",
        table(compiling, numbers_from=4),
        "## Loading\n\nIn a fresh process on one core, the files being in the system's cache.",
        table(loading, numbers_from=3),
        "## A session's own time\n\nA call with NumPy arrays in and out, next to "
        "`iree-benchmark-module` on the same module, whose inputs are on the device already; "
        "the two in turns.",
        table(calling, numbers_from=3),
        f"{results['date']}, {machine['processor']} "
        f"(family/model/stepping {machine['family_model_stepping']}), "
        f"{machine['logical_cores']} cores, {machine['system']}, Python {machine['python']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _ratio(results: dict[str, Any], model: dict[str, Any], state: str) -> str:
    """A precision's wall time over that of f32 in the same turn."""
    same = ("model", "seq_len")
    plain = [
        other
        for other in results["models"]
        if other["precision"] == "f32" and all(other[key] == model[key] for key in same)
    ]
    if not plain or model["precision"] == "f32":
        return "-"
    pairs = zip(model[state], plain[0][state], strict=True)
    return f"{statistics.median(ours['wall_s'] / f32['wall_s'] for ours, f32 in pairs):.2f}"


def _median(rows: Sequence[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure compiling, loading and calling.")
    parser.add_argument("--models", type=one_of(MODELS), default=["minilm", "bert-base"])
    parser.add_argument("--seq-len", type=whole_numbers, default=[128])
    parser.add_argument(
        "--precisions", type=one_of(("f32", "bf16", "int8")), default=["f32", "bf16", "int8"]
    )
    parser.add_argument("--runs", type=int, default=3, help="default %(default)s")
    add_outputs(parser, "compile-time.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
