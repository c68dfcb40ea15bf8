"""How much faster a product is whose weight has blocks of zeros, beside the dense one.

    python benchmarks/sparsity.py [--rounds N] [--json FILE] [--docs DIRECTORY]

One thread, 128 rows. For each engine of this machine: the dense product, and sparse ones that
keep 50, 25 and 10 % of the blocks, drawn at random (as many in each panel), and none: what that
takes, no sparsity saves. All are checked against NumPy first; then every kernel takes its turn in
each round. A time is that of the processor, so that what else runs on the machine counts little;
the sparse product in tiles includes turning its activations. The result goes to one buffer that is
there already.

Then layers compiled as a model is: blocks of zeros on software Vulkan, and whole inputs of zeros
there and on the CPU: a few calls of each in turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iree.runtime as runtime
import numpy as np
from common.machine import choose_cpus, load_average, machine_record
from common.options import add_outputs
from common.results import write_json
from common.sparse_models import layer_contestants, layer_entries
from common.sparse_products import DENSITIES, Contestant, contestants
from common.sparsity_report import write_report
from common.stats import significant

from canao import targets
from canao.compiler.kernels.trial import build

__all__ = ["main"]

_SHAPES = ((768, 3072), (3072, 768))
_ROWS = 128
_TOOL = Path(sysconfig.get_path("scripts")) / "iree-benchmark-module"
_MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3}
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class _Ready:
    contestant: Contestant
    command: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page; 1 where a kernel was wrong."""
    options = _parser().parse_args(arguments)
    results: dict[str, Any] = {
        "schema": 2,
        "kind": "sparsity",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "load": load_average(),
        "rows": _ROWS,
        "entries": [],
    }
    wrong = False
    for depth, outputs in _SHAPES:
        with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
            ready = []
            for contestant in contestants(targets.get("host").features, _ROWS, depth, outputs):
                prepared = _prepared(contestant, Path(folder))
                wrong = wrong or prepared is None
                ready += [prepared] if prepared else []
            samples = _rounds(ready, options.rounds)
        for one, times in zip(ready, samples, strict=True):
            entry = one.contestant.fields()
            entry["median_us"] = significant(statistics.median(times))
            entry["samples_us"] = [significant(time) for time in times]
            results["entries"].append(entry)
        write_json(options.json, results)
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        layers = list(layer_contestants(Path(folder), _ROWS, *_SHAPES[0], DENSITIES))
        results["layers"] = layer_entries(layers, options.layer_rounds, _tell)
    write_json(options.json, results)
    if options.docs:
        write_report(results, options.docs, DENSITIES)
    return int(wrong)


def _prepared(contestant: Contestant, folder: Path) -> _Ready | None:
    """Compile and check; None where the numbers are wrong."""
    name = contestant.name
    module = folder / f"{name}.vmfb"
    build(contestant.program(), targets.get("host"), module)
    flags = []
    for place, array in enumerate(contestant.arguments):
        path = folder / f"{name}-{place}.npy"
        np.save(path, array)
        flags.append(f"--input=@{path}")
    flags.append(f"--input=&{'x'.join(map(str, contestant.expected.shape))}xf32")
    plain = folder / "plain.vmfb"
    build(contestant.program(storage=False), targets.get("host"), plain)
    config = runtime.Config("local-sync")
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, plain.read_bytes()))
    found = np.asarray(context.modules.module["main"](*contestant.arguments).to_host())
    error = np.abs(found - contestant.expected).max() / np.abs(contestant.expected).max()
    if not error < _TOLERANCE:
        _tell(f"{name}: WRONG by {error:.1e}")
        return None
    _tell(f"{name}: right")
    command = [str(_TOOL), f"--module={module}", "--function=main", "--device=local-sync"]
    command += ["--benchmark_format=json", "--benchmark_min_time=0.05s", *flags]
    return _Ready(contestant, command)


def _rounds(ready: Sequence[_Ready], rounds: int) -> list[list[float]]:
    """Microseconds of one call, for each contestant and round."""
    samples: list[list[float]] = [[] for _ in ready]
    cpu = ",".join(map(str, choose_cpus(1)))
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(len(ready))
        for place in order:
            command = ["taskset", "-c", cpu, *ready[place].command]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            (measured,) = json.loads(done.stdout)["benchmarks"]
            unit = _MICROSECONDS[measured["time_unit"]]
            samples[place].append(measured["cpu_time"] * unit)
        _tell(f"round {number + 1} of {rounds}")
    return samples


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure products with blocks of zeros.")
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    parser.add_argument("--layer-rounds", type=int, default=5, help="default %(default)s")
    add_outputs(parser, "sparsity.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
