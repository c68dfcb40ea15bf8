"""Models that ``canao.optimize`` finds, beside LiteRT running the fine-tuned teacher in f32.

    python benchmarks/searched.py --data DIR [--tasks sst2,stsb] [--seeds 3] [--faster 8.2]
    python benchmarks/searched.py --data DIR --measure [--rounds 15]

DIR holds a directory for each task with train.jsonl.gz and dev.jsonl.gz. For each task there is
one search, at 128 tokens and seed 0; what it found is then trained anew with every other seed,
as its finalists were, each beside the teacher of that seed. The latency that a search is given is
what LiteRT takes for the teacher in f32 on this machine, over ``--faster``; where int8 alone is
that fast (with AMX it is), ask for more. A finished search or training is a line of
benchmarks/results/searched.jsonl and is not done again; one that was stopped goes on.
``--measure`` then has the found bundle and LiteRT take turns in one run, on one thread, and
evaluates what was trained with each seed, compiled, on the device; what was measured of other
tasks stays.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.building import build
from common.contest import Configuration, Entrant, Turns, measure
from common.machine import stamp
from common.models import fingerprint, materialize, samples
from common.options import add_outputs, one_of
from common.paths import BENCHMARKS, RESULTS, cache_directory
from common.protocol import ModelSpec
from common.results import write_json
from common.search_report import write_page
from common.sharing_report import append, read_lines
from common.stats import ratio_of, significant
from peer import all_peers

__all__ = ["main"]

TASKS = ("sst2", "mrpc", "stsb")
SEQ_LEN = 128
_MODEL = "minilm"
_TRAINING = BENCHMARKS / "recipes" / "training-half.toml"
_UNDISTURBED = 0.9  # of a core, of which it has the whole if nothing else runs
_TIMES = RESULTS / "searched.json"
_ANY_COSINE = 1e-6


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is not done yet, and write the page; 1 where a found model's logits are wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory of the data sets")
    parser.add_argument("--tasks", type=one_of(TASKS), default=["sst2", "stsb"])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--faster", type=float, default=8.2, help="than LiteRT, asked of searches")
    parser.add_argument("--max-loss", default="1%")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--measure", action="store_true", help="measure what was found")
    parser.add_argument("--rounds", type=int, default=Turns.rounds, help="default %(default)s")
    add_outputs(parser, "searched.jsonl")
    options = parser.parse_args(arguments)
    wrong = False
    if options.measure:
        for line in read_lines(options.json):
            if line["kind"] == "search" and line["task"] in options.tasks:
                found = {**_race(line, options.rounds), **_scores(options, line)}
                wrong = wrong or any(one["status"] != "timed" for one in found["entries"])
                others = [one for one in _measured() if one["task"] != line["task"]]
                write_json(_TIMES, {"kind": "searched", "tasks": [*others, found]})
    else:
        for task in options.tasks:
            _search(options, task)
            for seed in range(1, options.seeds):
                _train(options, task, seed)
    if options.docs is not None:
        write_page(read_lines(options.json), _TIMES, options.docs / "searched.md")
    return int(wrong)


def _measured() -> list[dict[str, Any]]:
    """What was measured of each task, the last time."""
    if not _TIMES.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(_TIMES.read_text(encoding="utf-8"))["tasks"]
    return found


def _line(lines: Path, kind: str, task: str, seed: int) -> dict[str, Any] | None:
    wanted = {"kind": kind, "task": task, "seed": seed}
    found = (line for line in read_lines(lines) if wanted.items() <= line.items())
    return next(found, None)


def _search(options: Any, task: str) -> None:
    """One search; its line holds the result and the call's specification."""
    import canao  # type: ignore[import-not-found,unused-ignore]
    from canao.compiler.checkpoint import locate, read_config
    from canao.search.data import load_split
    from canao.search.space.space import ArchitectureSpace
    from canao.search.tasks import task_for

    if _line(options.json, "search", task, 0) is not None:
        return
    data = options.data / task
    kind = task_for(load_split(data, "train"))
    location, _ = locate(_MODEL)
    space = ArchitectureSpace.of_teacher(
        read_config(location, _MODEL), head=kind.head, labels=kind.num_labels or 2
    )
    limits = {"latency": _limit(task, options.faster), "max_loss": options.max_loss}
    began = time.monotonic()
    result = canao.optimize(
        _MODEL,
        data=data,
        output=_folder(task),
        space=dataclasses.replace(space, seq_lens=(SEQ_LEN,)),
        options=_training(0),
        trials=options.trials,
        progress=_teller(f"{task}, search"),
        **limits,
    )
    told = result.to_json()
    told["study"] = _within_cache(told["study"])
    for name in ("model", "bundle"):
        told["best"][name] = _within_cache(told["best"][name])
    told["teacher"]["directory"] = _within_cache(told["teacher"]["directory"])
    asked = {**limits, "faster": options.faster}
    line = {"kind": "search", "task": task, "seed": 0, **asked, **stamp(), "result": told}
    line["work"] = _work(_folder(task))
    append(options.json, {**line, "seconds": round(time.monotonic() - began, 1)})


def _limit(task: str, faster: float) -> str:
    """The latency to ask for; kept, so that a search that goes on is given the same."""
    place = _folder(task).with_name(f"{task}-limit.json")
    if place.is_file():
        return str(json.loads(place.read_text(encoding="utf-8"))["latency"])
    peer, model = all_peers()["litert-f32"], materialize(_MODEL, cache_directory())
    artifact = build(peer, model, SEQ_LEN, cache_directory(), {})
    configuration = Configuration(model=model, seq_len=SEQ_LEN, threads=1)
    entrant = Entrant(peer, artifact, configuration, samples(model, SEQ_LEN))
    (entry,) = measure([entrant], Turns())
    if entry.median_ms is None:
        raise SystemExit(f"LiteRT cannot be measured: {entry.reason}")
    if (entry.cpu_per_wall or 0.0) < _UNDISTURBED:
        raise SystemExit("LiteRT was disturbed while it was measured: leave the machine to it.")
    latency = f"{significant(entry.median_ms / faster)}ms"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, {"latency": latency, "litert_ms": entry.median_ms, "faster": faster})
    return latency


def _work(study: Path) -> dict[str, float]:
    """Seconds that all trials took, and how many of them went into anything but evaluating."""
    from canao.search.study.folder import StudyFolder
    from canao.search.study.running import looked_at

    trials = looked_at(StudyFolder.open(study)).values()
    return {
        "trials_s": round(sum(trial.seconds for trial in trials), 2),
        "overhead_s": round(sum(trial.overhead for trial in trials), 2),
    }


def _train(options: Any, task: str, seed: int) -> None:
    """What the search found, trained with another seed."""
    from canao.compiler.checkpoint import locate, read_config
    from canao.search.compress import compress
    from canao.search.space.architecture import Architecture

    found = _line(options.json, "search", task, 0)
    if found is None or _line(options.json, "trained", task, seed) is not None:
        return
    architecture = Architecture.from_json(found["result"]["best"]["architecture"])
    location, _ = locate(_MODEL)
    result = compress(
        _MODEL,
        data=options.data / task,
        recipe=architecture.recipe(read_config(location, _MODEL)),
        options=_training(seed).replace(seq_len=SEQ_LEN),
        output=_folder(task).with_name(f"{task}-{seed}"),
        dense=False,
        progress=_teller(f"{task}, seed {seed}"),
    )
    told = result.to_json()
    for name in ("output", "teacher"):
        told[name] = _within_cache(told[name])
    append(
        options.json,
        {"kind": "trained", "task": task, "seed": seed, **stamp(), "result": told},
    )


def _scores(options: Any, search: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By seed, the metric of what was trained, compiled as the search does, on the device.

    ``refused``: by seed, why canao gives no bundle of it unless ``--cosine`` allows more.
    """
    from canao.search.evaluation import evaluate

    base, task = cache_directory().parent, search["task"]
    bundles, refused = {0: base / search["result"]["best"]["bundle"]}, {}
    for line in read_lines(options.json):
        if line["kind"] == "trained" and line["task"] == task:
            model = base / line["result"]["output"]
            bundles[line["seed"]] = bundle = model.with_name(f"{model.name}.canao")
            reason = _compiled(model, bundle)
            if reason:
                refused[str(line["seed"])] = reason
    scores = {
        str(seed): evaluate(bundle, options.data / task, seq_len=SEQ_LEN).value
        for seed, bundle in sorted(bundles.items())
    }
    return {"scores": scores, "refused": refused}


def _compiled(model: Path, bundle: Path) -> str:
    """Compile; why it was refused at first, or nothing."""
    from canao.compiler.api import compile_model
    from canao.errors import NumericsError

    def make(**options: Any) -> None:
        compile_model(
            os.fspath(model),
            target="host",
            seq_len=SEQ_LEN,
            output=bundle,
            require_verified=True,
            **options,
        )

    try:
        make()
    except NumericsError as error:
        make(cosine=_ANY_COSINE)
        return str(error)
    return ""


def _race(line: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The found bundle and its teacher in LiteRT's f32, in turns on one thread."""
    peers, versions = all_peers(), dict[str, Any]()
    result = line["result"]
    base = cache_directory().parent
    teacher = _spec(f"{line['task']}-teacher", base / result["teacher"]["directory"])
    found = _spec(f"{line['task']}-found", base / result["best"]["model"])
    entrants = []
    for name, model in (("litert-f32", teacher), ("canao-int8", found)):
        artifact = (
            base / result["best"]["bundle"]
            if model is found
            else build(peers[name], model, SEQ_LEN, cache_directory(), versions)
        )
        configuration = Configuration(model=model, seq_len=SEQ_LEN, threads=1)
        entrants.append(Entrant(peers[name], artifact, configuration, samples(model, SEQ_LEN)))
    entries = measure(entrants, Turns(rounds=rounds))
    ratio = None
    if all(entry.rounds for entry in entries):
        value = asdict(ratio_of(entries[0].rounds, entries[1].rounds))
        ratio = {key: significant(number) for key, number in value.items()}
    return {
        "task": line["task"],
        **stamp(),
        "versions": versions,
        "ratio": ratio,
        "entries": [asdict(entry) for entry in entries],
    }


def _spec(name: str, directory: Path) -> ModelSpec:
    return ModelSpec(
        name=name,
        title=name,
        directory=directory,
        fingerprint=fingerprint(directory),
        random_weights=False,
        head="sequence-classification",
    )


def _training(seed: int) -> Any:
    from canao.search.training.options import TrainingOptions

    return TrainingOptions.load(_TRAINING).replace(seed=seed)


def _folder(task: str) -> Path:
    return Path(cache_directory() / "searched" / task)


def _within_cache(path: str) -> str:
    return os.path.relpath(path, cache_directory().parent)


def _teller(where: str) -> Any:
    last = 0.0

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 20 or "step" not in text:
            last = time.monotonic()
            print(f"{where}: {text}", file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
