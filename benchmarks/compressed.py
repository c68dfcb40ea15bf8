"""Compressed models beside LiteRT running their teacher: how much faster, at what accuracy.

    python benchmarks/compressed.py [--data DIR] [--tasks sst2,mrpc,stsb,qa] [--rounds 15]
        [--again]

Takes the models that ``benchmarks/compression.py`` trained (of each task the first seed that has
most of them on this machine): the fine-tuned teacher in LiteRT (f32 and int8) and in canao, and
its compressed forms in canao's int8 and f32. Everyone reads 128 tokens and is held to the PyTorch
logits of its own model first; then they take turns in one run. Raw samples go to the JSON file, a
table to ``docs/benchmarks/``. It writes after each task; what the file has of the very same models
on this machine is not measured again, unless ``--again`` asks for it, and tasks that are not asked
for stay as they are. With ``--data``, the directory of the data sets, canao's bundles are also
evaluated on the development split, on the device.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.building import build
from common.contest import Configuration, Entrant, Entry, Turns, measure
from common.machine import load_average, machine_record
from common.models import fingerprint, samples
from common.options import add_outputs, one_of
from common.paths import RESULTS, cache_directory
from common.protocol import ModelSpec
from common.results import replace_text, table, write_json
from common.stats import ratio_of, significant
from compression import TASKS as SETS
from peer import all_peers

__all__ = ["main"]

TASKS = {
    "sst2": "sequence-classification",
    "mrpc": "sequence-classification",
    "stsb": "sequence-classification",
    "qa": "question-answering",
}
SEQ_LEN = 128
# Of what is evaluated, where it is another.
_TEXT_LENGTH = {"qa": 192}
# Who runs which model. The teacher in LiteRT's f32 is what all are compared with; it is first.
_RUNS = (
    ("teacher", ("litert-f32", "litert-int8", "canao-f32", "canao-int8")),
    ("half", ("canao-f32", "canao-int8")),
    ("quarter", ("canao-f32", "canao-int8")),
)


_STAMP = ("date", "machine", "load", "versions", "threads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what there are models for; 1 where a model of canao's gave wrong logits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="evaluates the bundles, too")
    parser.add_argument("--tasks", type=one_of(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=Turns.rounds, help="default %(default)s")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    add_outputs(parser, "compressed.json")
    options = parser.parse_args(arguments)
    kept = _kept(options.json)
    for task in options.tasks:
        models = _models(task)
        if "half" not in models:
            print(f"{task}: no model yet; run compression.py first", file=sys.stderr)
            continue
        facts = {
            "task": task,
            "threads": options.threads,
            "models": {size: model.fingerprint for size, (model, _) in models.items()},
        }
        known = next((one for one in kept if _same(one, facts) and not options.again), None)
        if known is None:
            stamp = {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "machine": machine_record(),
                "load": load_average(),
                "versions": {},
            }
            found = _measure(task, models, options.threads, options.rounds, stamp["versions"])
            known = {**facts, **stamp, **found}
            kept = [one for one in kept if one["task"] != task]
            kept.append(known)
            kept.sort(key=lambda one: list(TASKS).index(one["task"]))
            write_json(options.json, _results(kept))
        if options.data is not None:
            _evaluate(known, models, options.data)
            write_json(options.json, _results(kept))
    if options.docs and kept:
        replace_text(options.docs / "compressed.md", markdown(_results(kept)))
    bad = (entry["status"] != "timed" for one in kept for entry in one["entries"])
    return int(any(bad))


def _results(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": 2, "kind": "compressed", "seq_len": SEQ_LEN, "tasks": tasks}


def _kept(path: Path) -> list[dict[str, Any]]:
    """The tasks that the file has, each with what was noted when it was measured."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    # In files of the first schema all tasks were of one run, and models were not named.
    run = {name: found[name] for name in _STAMP if name in found}
    return [{"models": {}, **run, **one} for one in found["tasks"]]


def _same(one: dict[str, Any], facts: dict[str, Any]) -> bool:
    now = machine_record()
    machine = all(one["machine"][key] == now[key] for key in ("processor", "features"))
    timed = all(entry["status"] == "timed" for entry in one["entries"])
    return machine and timed and all(one[key] == value for key, value in facts.items())


def _models(task: str) -> dict[str, tuple[ModelSpec, dict[str, Any]]]:
    """The teacher and its compressed forms, with what is known of each, by size: of one seed."""
    found: dict[int, dict[str, tuple[ModelSpec, dict[str, Any]]]] = {}
    file = RESULTS / "compression.jsonl"
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        line = json.loads(text)
        folder = cache_directory() / "compression" / f"{task}-{line['size']}-{line['seed']}"
        teacher = cache_directory().parent / line["result"]["teacher"]
        if line["task"] == task and folder.is_dir() and teacher.is_dir():
            result, models = line["result"], found.setdefault(line["seed"], {})
            models["teacher"] = (_spec(task, "teacher", teacher), result["before"])
            models[line["size"]] = (_spec(task, line["size"], folder), result["after"])
    return found[min(found, key=lambda seed: (-len(found[seed]), seed))] if found else {}


def _spec(task: str, size: str, directory: Path) -> ModelSpec:
    return ModelSpec(
        name=f"{task}-{size}",
        title=f"{task}, {size}",
        directory=directory,
        fingerprint=fingerprint(directory),
        random_weights=False,
        head=TASKS[task],
    )


def _measure(
    task: str,
    models: dict[str, tuple[ModelSpec, dict[str, Any]]],
    threads: int,
    rounds: int,
    versions: dict[str, Any],
) -> dict[str, Any]:
    peers = all_peers()
    entrants, told = [], []
    for size, names in _RUNS:
        if size not in models:
            continue
        model, facts = models[size]
        reference = samples(model, SEQ_LEN)
        configuration = Configuration(model=model, seq_len=SEQ_LEN, threads=threads)
        for name in names:
            artifact = build(peers[name], model, SEQ_LEN, cache_directory(), versions)
            entrants.append(Entrant(peers[name], artifact, configuration, reference))
            told.append({"size": size, "metric": facts["metric"], "flops": facts["flops"]})
    entries = measure(entrants, Turns(rounds=rounds))
    return {
        "task": task,
        "metric": models["teacher"][1]["metric_name"],
        "entries": [
            {**asdict(entry), **facts, "ratio": _ratio(entries[0], entry)}
            for entry, facts in zip(entries, told, strict=True)
        ],
    }


def _evaluate(
    one: dict[str, Any], models: dict[str, tuple[ModelSpec, dict[str, Any]]], data: Path
) -> None:
    """Note, in canao's entries, the metric that the bundle has on the development split."""
    from canao.search.evaluation import evaluate  # type: ignore[import-not-found,unused-ignore]

    peers, length = all_peers(), _TEXT_LENGTH.get(one["task"], SEQ_LEN)
    sets = ",".join(str(data / name) for name in SETS[one["task"]])
    for entry in one["entries"]:
        if not entry["ours"] or "bundle_metric" in entry:
            continue
        peer, (model, _) = peers[entry["name"]], models[entry["size"]]
        bundle = build(peer, model, length, cache_directory(), {})
        if isinstance(bundle, Path):
            found = evaluate(bundle, sets, seq_len=length)
            entry["bundle_metric"] = found.value
            print(f"  {model.name}, {peer.name}: {found.value:.2f}", file=sys.stderr)


def _ratio(baseline: Entry, entry: Entry) -> dict[str, float] | None:
    """How many times faster than the teacher in LiteRT's f32, with its interval."""
    if not (baseline.rounds and entry.rounds):
        return None
    found = asdict(ratio_of(baseline.rounds, entry.rounds))
    return {key: significant(value) for key, value in found.items()}


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    parts = [
        "# Compressed models beside LiteRT running their teacher",
        "Made by `python benchmarks/compressed.py` of the models that "
        "`python benchmarks/compression.py` trained (one seed of each); every sample is in "
        f"`benchmarks/results/compressed.json`. {results['seq_len']} tokens, from token ids to "
        "logits, everyone of a task in turns in one run. "
        "*Times faster* is the time of LiteRT in f32 running the fine-tuned teacher over the "
        "row's, with a 95 % interval. The metric is of the development split: the f32 model's in "
        "PyTorch, and what canao's bundle gives on the device (of questions compiled for 192 "
        "tokens, the length of their windows).",
    ]
    for one in results["tasks"]:
        head = ["Model", "GFLOP", f"{one['metric']} in PyTorch", "Runs in", "There"]
        rows = [[*head, "Median, ms", "Times faster"]]
        for entry in one["entries"]:
            runs = f"{entry['title']} {entry['precision']}"
            there = f"{entry['bundle_metric']:.2f}" if "bundle_metric" in entry else "-"
            cells = [entry["size"], f"{entry['flops'] / 1e9:.2f}", f"{entry['metric']:.2f}"]
            cells += [runs, there]
            ratio = entry["ratio"]
            if ratio is None:
                rows.append([*cells, entry["reason"], ""])
                continue
            told = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            rows.append([*cells, f"{entry['median_ms']:.3g}", told])
        parts += [f"## {one['task']}", table(rows, numbers_from=4), _stamp(one)]
    return "\n\n".join(parts) + "\n"


def _stamp(one: dict[str, Any]) -> str:
    machine = one["machine"]
    return (
        f"{one['date']}, {one['threads']} thread(s) of {machine['processor']} "
        f"(family/model/stepping {machine['family_model_stepping']}), "
        f"{machine['logical_cores']} cores, {machine['system']}; load average {one['load']} at "
        "the start."
    )


if __name__ == "__main__":
    sys.exit(main())
