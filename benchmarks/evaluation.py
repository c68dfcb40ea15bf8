"""How long it takes to evaluate a thousand sentences on a device.

    python benchmarks/evaluation.py --data DIR [--models teacher,half,quarter]
        [--precisions f32,int8] [--device local] [--target host] [--threads 1,2] [--rounds 5]

MiniLM-L6 with a head for SST-2, and the half and the quarter of it that ``recipes/`` describes,
compiled for 32, 64 and 128 tokens; then ``evaluate`` of the first ``--rows`` (1,000)
sentences of DIR/sst2 (train, for dev has fewer), as often as ``--rounds`` says. Heads are drawn,
not trained: times do not depend on it. Each finished line of benchmarks/results/evaluation.jsonl
has the seconds of every round and is not measured again, unless ``--again`` asks for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.machine import machine_record, stamp
from common.options import add_outputs, one_of, whole_numbers
from common.paths import BENCHMARKS, cache_directory
from common.results import replace_text, table
from common.stats import significant

__all__ = ["main"]

MODELS = ("teacher", "half", "quarter")
PRECISIONS = ("f32", "bf16", "int8")
LENGTHS = (32, 64, 128)
_WANTED_S = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=one_of(MODELS), default=list(MODELS))
    parser.add_argument("--precisions", type=one_of(PRECISIONS), default=["f32", "int8"])
    parser.add_argument("--device", default="local")
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=whole_numbers, default=[1])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    add_outputs(parser, "evaluation.jsonl")
    options = parser.parse_args(arguments)
    for model in options.models:
        for precision in options.precisions:
            bundle: Path | None = None
            for threads in options.threads:
                asked = {
                    **{"model": model, "precision": precision, "threads": threads},
                    **{"device": options.device, "target": options.target, "rows": options.rows},
                }
                if not options.again and _known(options.json, asked):
                    continue
                bundle = bundle or _bundle(options.data, model, precision, options.target)
                line = _measure(bundle, options.data, asked, options.rounds)
                options.json.parent.mkdir(parents=True, exist_ok=True)
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, sort_keys=True) + "\n")
    lines = _lines(options.json)
    if options.docs is not None and lines:
        replace_text(options.docs / "evaluation.md", markdown(lines))
    return 0


def _bundle(data: Path, model: str, precision: str, target: str) -> Path:
    """The compiled model, from the cache of benchmarks or made now."""
    from canao.compiler.api import compile_model
    from canao.compiler.checkpoint import packaged_minilm
    from canao.compiler.compression.recipe import Recipe
    from canao.compiler.compression.saving import save_compressed
    from canao.compiler.compression.structured import prune_structured
    from canao.search.data import load_split
    from canao.search.tasks import task_for
    from canao.search.training.heads import with_new_head
    from canao.search.training.teacher import load_tokenizer

    recipe = Recipe()
    if model != "teacher":
        recipe = Recipe.load(BENCHMARKS / "recipes" / f"{model}.toml")
    whole = with_new_head("minilm", task_for(load_split(str(data / "sst2"), "train")), 0)
    tokenizer = load_tokenizer(Path(packaged_minilm()))
    folder = cache_directory() / "evaluation" / model
    save_compressed(prune_structured(whole, tokenizer, recipe), tokenizer, folder, recipe)
    place = folder.with_name(f"{model}-{precision}-{target}.canao")
    print(f"compiling {place.stem}", file=sys.stderr, flush=True)
    asked = {"target": target, "seq_len": LENGTHS, "precision": precision, "output": place}
    # Cut and not trained, a model is less sure of its answers than int8 wants it.
    compile_model(folder, cosine=None if precision in ("f32", "bf16") else 0.9, **asked)
    return place


def _measure(bundle: Path, data: Path, asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    from canao.search.evaluation import evaluate

    seconds = []
    for _ in range(rounds):
        found = evaluate(
            bundle,
            str(data / "sst2"),
            split="train",
            limit=asked["rows"],
            device=asked["device"],
            target=asked["target"],
            threads=asked["threads"],
        )
        seconds.append(significant(found.seconds))
        print(f"{bundle.stem}: {found.seconds:.1f} s", file=sys.stderr, flush=True)
    return {
        **stamp(),
        "kind": "evaluation",
        "emulated": found.emulated,
        "seq_lens": list(LENGTHS),
        "seconds": seconds,
        **asked,
    }


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The page: of each case the latest line."""
    latest = {_case(line): line for line in lines}
    head = ["Model", "Precision", "Device", "Target", "Threads", "Sentences", "Median, s"]
    rows = [[*head, "Slowest, s", "Under 20 s"]]
    for line in latest.values():
        seconds = line["seconds"]
        rows.append(
            [
                line["model"],
                line["precision"],
                line["device"] + (" (emulated)" if line["emulated"] else ""),
                line["target"],
                str(line["threads"]),
                f"{line['rows']:,}",
                f"{statistics.median(seconds):.2f}",
                f"{max(seconds):.2f}",
                "yes" if max(seconds) < _WANTED_S else "no",
            ]
        )
    line = lines[-1]
    return (
        "# Evaluating on a device\n\n"
        "Made by `python benchmarks/evaluation.py --data DIR` (every round in "
        "`benchmarks/results/evaluation.jsonl`): sentences of SST-2 through `canao eval`, from "
        "texts to the metric and its interval, loading the bundle left out; MiniLM-L6 and half "
        f"and a quarter of it, compiled for {', '.join(map(str, line['seq_lens']))} tokens.\n\n"
        f"{table(rows, numbers_from=4)}\n\n{line['date']}, {line['machine']['processor']}, "
        f"{line['machine']['logical_cores']} cores; load average {line['load']}.\n"
    )


def _case(line: dict[str, Any]) -> tuple[Any, ...]:
    names = ("model", "precision", "threads", "device", "target", "rows")
    return tuple(line[name] for name in names)


def _known(path: Path, asked: dict[str, Any]) -> bool:
    now = machine_record()["processor"]
    return any(
        _case(line) == _case(asked) and line["machine"]["processor"] == now
        for line in _lines(path)
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The finished lines; one that a killed process left half-written does not count."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
