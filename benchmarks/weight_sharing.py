"""Whether shared weights order architectures as training each of them does, and the table of them.

    python benchmarks/weight_sharing.py --data DIR [--count 16] [--kinds shared,adapted,trained]
    python benchmarks/weight_sharing.py --data DIR --table

DIR holds a directory sst2 with train.jsonl.gz and dev.jsonl.gz. The architectures are drawn from
all sub-networks of MiniLM-L6, fine-tuned on SST-2. Each is judged by the weights that all of them
share, by those after a few steps, and by all of `canao.compress`; on the tenth of the training
rows that nothing is trained on. What is found is a line of benchmarks/results/weight-sharing.jsonl
and is not done again; a training that was stopped goes on at its last checkpoint.

``--table`` judges every architecture of benchmarks/results/architectures.jsonl, whose latencies
are recorded too, by shared weights, into search/accuracy/recorded/sst2.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.drawn_architectures import read_architectures
from common.options import add_outputs, one_of
from common.paths import BENCHMARKS, RESULTS, cache_directory
from common.sharing_report import append, read_lines, write_page

__all__ = ["main"]

KINDS = ("shared", "adapted", "trained")
_OPTIONS = BENCHMARKS / "recipes" / "training-agreement.toml"
_STEPS = 50
_TASK, _TEACHER = "sst2", "minilm"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what was not judged yet, and write the page or the table."""
    options = _parser().parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(options.nice)
    import torch

    torch.set_num_threads(options.threads)
    from canao.search.accuracy.estimator import AccuracyEstimator
    from canao.search.training.options import TrainingOptions

    training = TrainingOptions.load(_OPTIONS)
    data = options.data / _TASK
    estimator = AccuracyEstimator.prepare(_TEACHER, data=data, options=training, progress=_tell)
    if options.table:
        _table(estimator, options.list, options.out)
        return 0
    rng = np.random.default_rng(options.seed)
    drawn = [estimator.space.sample(rng) for _ in range(options.count)]
    for kind in options.kinds:
        for number, architecture in enumerate(drawn, 1):
            _judge(options.json, estimator, architecture, kind, data, training, number)
    if options.docs is not None:
        write_page(read_lines(options.json), options.docs / "weight-sharing.md")
    return 0


def _judge(
    results: Path,
    estimator: Any,
    architecture: Any,
    kind: str,
    data: Path,
    training: Any,
    number: int,
) -> None:
    """Judge one architecture, unless a line tells how good it is."""
    facts = {
        "kind": kind,
        "digest": architecture.digest,
        "training": training.to_json() if kind != "shared" else None,
        "steps": _STEPS if kind == "adapted" else None,
    }
    if any(all(line.get(k) == v for k, v in facts.items()) for line in read_lines(results)):
        return
    began, worked = time.monotonic(), time.process_time()
    extra: dict[str, Any] = {}
    if kind == "trained":
        accuracy, extra["dev"] = _trained(estimator, architecture, data, training)
    else:
        accuracy = estimator.evaluate(architecture, steps=_STEPS if kind == "adapted" else 0)
    line = {
        "schema": 1,
        **facts,
        "architecture": architecture.to_json(),
        "accuracy": accuracy.to_json(),
        **extra,
        "seconds": round(time.monotonic() - began, 3),
        "cpu_seconds": round(time.process_time() - worked, 3),
    }
    append(results, line)
    _tell(f"{kind} {number}: {accuracy.value:.2f} in {line['cpu_seconds']:.1f} s of the processor")


def _trained(estimator: Any, architecture: Any, data: Path, training: Any) -> tuple[Any, float]:
    """(the accuracy on the rows held out, that on dev) after all of compression."""
    from canao.compiler.compression.loading import load_compressed
    from canao.search.accuracy import Accuracy
    from canao.search.compress import compress
    from canao.search.training.distillation import evaluate_as_compiled
    from canao.search.training.teacher import load_tokenizer

    place = cache_directory() / "weight-sharing" / architecture.digest
    recipe = architecture.recipe(estimator.teacher_config)
    result = compress(
        str(estimator.teacher),
        teacher=str(estimator.teacher),
        data=str(data),
        recipe=recipe,
        options=training.replace(seq_len=architecture.seq_len),
        output=place,
        dense=False,
        progress=_tell,
    )
    found = evaluate_as_compiled(
        load_compressed(place),
        load_tokenizer(place),
        estimator.data,
        estimator.data.held,
        recipe,
        architecture.seq_len,
        (_TASK, "train"),
    )
    accuracy = Accuracy(
        value=found.value,
        interval=found.interval,
        kind="trained",
        metric=found.metric,
        n=len(estimator.data.held),
    )
    return accuracy, float(result.after.metric)


def _table(estimator: Any, architectures: Path, out: Path) -> None:
    """Judge all that are not in ``out`` yet."""
    from canao.search.accuracy.recorded import RecordedAccuracy, read_accuracies

    known = {line.architecture.digest for line in read_accuracies(out)} if out.is_file() else set()
    drawn = read_architectures(architectures)
    for number, architecture in enumerate(drawn, 1):
        if architecture.digest in known:
            continue
        worked = time.process_time()
        record = RecordedAccuracy(
            task=_TASK,
            teacher=_TEACHER,
            architecture=architecture,
            accuracy=estimator.evaluate(architecture),
        )
        append(out, record.to_json())
        worked = time.process_time() - worked
        _tell(f"{number} of {len(drawn)}: {record.accuracy.value:.2f}, {worked:.1f} s")


def _tell(text: str) -> None:
    """Progress on standard error: every twentieth step."""
    step = text.partition(": step ")[2].partition(" ")[0]
    if not step or int(step) % 20 == 0:
        print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16, help="architectures that are trained")
    parser.add_argument("--seed", type=int, default=0, help="draws them")
    parser.add_argument("--kinds", type=one_of(KINDS), default=list(KINDS))
    parser.add_argument("--table", action="store_true", help="record accuracies alone")
    parser.add_argument("--list", type=Path, default=RESULTS / "architectures.jsonl")
    recorded = BENCHMARKS.parent / "search" / "accuracy" / "recorded" / f"{_TASK}.jsonl"
    parser.add_argument("--out", type=Path, default=recorded)
    parser.add_argument("--threads", type=int, default=1, help="of training")
    parser.add_argument("--nice", type=int, default=5, help="added to this process's niceness")
    add_outputs(parser, "weight-sharing.jsonl")
    return parser


if __name__ == "__main__":
    sys.exit(main())
