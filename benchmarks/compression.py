"""What compressing MiniLM-L6 costs in accuracy: half and a quarter of its FLOPs, on four tasks.

    python benchmarks/compression.py --data DIR [--tasks sst2,mrpc,stsb,qa] [--seeds 3]
    python benchmarks/compression.py --data DIR --speed [--threads 2] [--rounds 7] [--again]

DIR holds a directory for each data set (sst2, mrpc, stsb; squad_subset, qamr and tydiqa_goldp_en
for questions) with train.jsonl.gz and dev.jsonl.gz. Each finished (task, size, seed) is a line of
benchmarks/results/compression.jsonl and is not done again; one that was stopped goes on at its
last checkpoint. ``--speed`` measures how much faster bf16 autocast trains than f32, and what
bucketing saves; each finished (task, step) is in benchmarks/results/compression-speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.compression_report import write_page
from common.compression_speed import STEPS, Effort, measure_speed
from common.machine import load_average, machine_record, stamp
from common.options import add_outputs, one_of
from common.paths import BENCHMARKS, RESULTS, cache_directory
from common.results import write_json

__all__ = ["main"]

TASKS = {
    "sst2": ("sst2",),
    "mrpc": ("mrpc",),
    "stsb": ("stsb",),
    "qa": ("squad_subset", "qamr", "tydiqa_goldp_en"),
}
# A quarter is not asked of questions.
SIZES = {"sst2": "half,quarter", "mrpc": "half,quarter", "stsb": "half,quarter", "qa": "half"}
RECIPES = BENCHMARKS / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", type=one_of(TASKS), default=list(TASKS))
    parser.add_argument("--sizes", type=one_of(("half", "quarter")), default=["half", "quarter"])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--threads", type=int, default=None, help="of training; all cores if left")
    parser.add_argument("--nice", type=int, default=5, help="added to this process's niceness")
    parser.add_argument("--speed", action="store_true", help="measure training's speed alone")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="of --speed")
    parser.add_argument("--again", action="store_true", help="measure also what --speed has")
    add_outputs(parser, "compression.jsonl")
    options = parser.parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(options.nice)
    if options.threads and not options.speed:
        import torch

        torch.set_num_threads(options.threads)
    speed = RESULTS / "compression-speed.json"
    if options.speed:
        effort = Effort(threads=options.threads or os.cpu_count() or 1, rounds=options.rounds)
        _speed(speed, options.data, options.tasks, effort, options.again)
    else:
        for seed in range(options.seeds):  # whole rounds first: all tasks have one before three
            for task in options.tasks:
                for size in options.sizes:
                    if size in SIZES[task].split(","):
                        _one(options.json, options.data, task, size, seed)
    if options.docs is not None:
        write_page(_lines(options.json), _read(speed), options.docs / "compression.md")
    return 0


def _speed(file: Path, data: Path, tasks: Sequence[str], effort: Effort, again: bool) -> None:
    """Measure each task and kind of step that the file has not yet of this machine."""
    kept = [] if again else _measured(file)
    for task in tasks:
        for step in STEPS:
            facts = {"task": task, "step": step, **asdict(effort)}
            if any(all(row[key] == value for key, value in facts.items()) for row in kept):
                continue
            print(f"{task}, {step}", file=sys.stderr, flush=True)
            row = measure_speed(task, _data(data, task), step, RECIPES, effort)
            kept = [one for one in kept if (one["task"], one["step"]) != (task, step)]
            kept.append({"load": load_average(), **row})
            write_json(file, {**stamp(), "kind": "compression-speed", "rows": kept})


def _measured(file: Path) -> list[dict[str, Any]]:
    """The rows of the file, if they are of this machine."""
    found, now = _read(file), machine_record()
    same = ("processor", "family_model_stepping", "features")
    if found is None or any(found["machine"][key] != now[key] for key in same):
        return []
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def _one(results: Path, data: Path, task: str, size: str, seed: int) -> None:
    """Compress once, unless a line tells that it was done with these very recipes."""
    import torch

    from canao.compiler.compression.recipe import Recipe
    from canao.search.compress import compress
    from canao.search.training.options import TrainingOptions

    recipe = Recipe.load(RECIPES / f"{size}.toml")
    chosen = "qa" if task == "qa" else size
    training = TrainingOptions.load(RECIPES / f"training-{chosen}.toml").replace(seed=seed)
    facts = {"recipe": recipe.to_json(), "training": training.to_json()}
    asked = {"task": task, "size": size, "seed": seed}
    if any(all(line[k] == v for k, v in {**asked, **facts}.items()) for line in _lines(results)):
        return
    where = f"{task}, {size}, seed {seed}"
    result = compress(
        "minilm",
        data=_data(data, task),
        recipe=recipe,
        options=training,
        output=cache_directory() / "compression" / f"{task}-{size}-{seed}",
        progress=_teller(where),
    )
    told = result.to_json()
    for name in ("output", "teacher"):  # where they are within canao's cache, on any machine
        told[name] = os.path.relpath(told[name], cache_directory().parent)
    line = {**asked, **facts, **stamp(), "threads": torch.get_num_threads(), "result": told}
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")
    before, after = result.before, result.after
    print(
        f"{where}: {before.metric_name} {before.metric:.2f} -> {after.metric:.2f} with "
        f"{after.flops / before.flops:.1%} of the FLOPs",
        file=sys.stderr,
    )


def _data(folder: Path, task: str) -> str:
    return ",".join(str(folder / name) for name in TASKS[task])


def _teller(where: str) -> Any:
    """Progress on standard error: on a terminal in one line, else every hundredth step."""
    seen = 0

    def tell(text: str) -> None:
        nonlocal seen
        seen += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{where}: {text}")
        elif "step" not in text or seen % 100 == 0:
            print(f"{where}: {text}", file=sys.stderr, flush=True)

    return tell


def _lines(path: Path) -> list[dict[str, Any]]:
    """The finished runs; a line that a killed process left half-written does not count."""
    found = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
    return found


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
