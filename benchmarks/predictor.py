"""How good the latency predictor is on what ships with canao, over many splits.

    python benchmarks/predictor.py [--splits 20] [--device FINGERPRINT]

What ships is of several machines: without ``--device`` that one counts whose CPU is most like this
one's. Each split trains on at most 150 architectures and tries the others, beside the baselines.
Then a predictor of one thread is adapted to two threads, and one of another machine that ships to
this one, by 20 measurements, drawn, and chosen by what `active.choose_next` says of the
architectures alone. At last: candidates a minute, from an architecture to its interval.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from common.machine import machine_record
from common.options import add_outputs
from common.results import replace_text, table, write_json

from canao.compiler.checkpoint import packaged_minilm, read_config
from canao.search.predictor.active import choose_next
from canao.search.predictor.assessment import assess, compared
from canao.search.predictor.predictor import LatencyPredictor, workloads_of
from canao.search.predictor.quality import Quality, quality, repeatability
from canao.search.predictor.recordings import select, shipped, shipped_for_this_cpu
from canao.search.predictor.records import Record
from canao.search.space.space import ArchitectureSpace

__all__ = ["main"]

_KEYS = ("spearman", "kendall", "mape", "within_5", "within_10", "coverage_90")
_SAMPLES = 20
_CANDIDATES = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page."""
    options = _parser().parse_args(arguments)
    records = shipped_for_this_cpu()
    if options.device is not None:
        records = [one for one in shipped() if one.setting.fingerprint == options.device]
    one = select(records, threads=1)
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "predictor",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "setting": one[0].setting.to_json(),
        "architectures": len(one),
        "repeats": repeatability(one),
        "splits": [],
    }
    for seed in range(options.splits):
        found = assess(one, seed=seed)
        each = {"predictor": found.quality, **found.others}
        results["splits"].append({name: quality.to_json() for name, quality in each.items()})
        _tell(f"split {seed + 1}: {found.quality}")
        write_json(options.json, results)
    two = [record for record in records if record.setting.threads == 2]
    if two:
        results["two_threads"] = _adapted(one, select(two), options.splits)
        results["two_threads_repeats"] = repeatability(select(two))
    here = one[0].setting
    away = [r for r in shipped() if r.setting.threads == 1 and r.setting != here]
    if away:
        # Of several machines the one of which most is known.
        other = max({r.setting for r in away}, key=lambda s: sum(r.setting == s for r in away))
        source = select([record for record in away if record.setting == other])
        results["another_machine"] = _adapted(source, one, options.splits)
        results["another_machine_from"] = source[0].setting.to_json()
    results["candidates_a_minute"] = _speed(LatencyPredictor.fit(one))
    write_json(options.json, results)
    if options.docs:
        replace_text(
            options.docs / f"{options.json.stem}.md", markdown(results, options.json.name)
        )
    return 0


def markdown(results: dict[str, Any], file: str) -> str:
    """The page of the results that ``file`` in the results' directory has."""
    splits = results["splits"]
    first = splits[0]["predictor"]
    columns = ["Spearman", "Kendall", "Mean error, %", "Within 5 %", "Within 10 %", "Covered, %"]
    rows = [["", *columns]]
    for name in splits[0]:
        rows.append([name, *_means([split[name] for split in splits])])
    rows += _again(results["repeats"])
    best = min(
        np.mean([split[name]["mape"] for split in splits]) for name in splits[0]
        if name != "predictor"
    )  # fmt: skip
    own = float(np.mean([split["predictor"]["mape"] for split in splits]))
    covered = [split["predictor"]["coverage_90"] for split in splits]
    parts = [
        "# The latency predictor",
        f"Made by `python benchmarks/predictor.py --device {results['setting']['fingerprint']} "
        f"--json benchmarks/results/{file}`, where every split is. "
        f"{results['architectures']} architectures "
        f"were measured on one thread of {_described(results['setting'])}; {len(splits)} splits, "
        f"each trained on {first['n_train']} of them and tried on the other {first['n_test']}. "
        "Means over splits.",
        table(rows, numbers_from=1),
        f"The mean error is {1 - own / best:.0%} below that of the best baseline. The 90 % "
        f"intervals held {100 * min(covered):.0f} to {100 * max(covered):.0f} % of what was "
        "measured.",
    ]
    if "two_threads" in results:
        two = results["two_threads"]
        parts += [
            "## Another setting",
            "Adapted from predictors of one thread, tried on all other measurements of two "
            "threads. *Chosen*: by what would tell most, of a half of the architectures that is "
            "drawn. The baselines learned from those drawn.",
            _of_few("Two threads", columns, two, results["two_threads_repeats"]),
        ]
    if "another_machine" in results:
        moved = results["another_machine"]
        parts += [
            "## Another machine",
            "Adapted in the same way from a predictor of "
            f"{_described(results['another_machine_from'])}, one thread.",
            _of_few("One thread", columns, moved, results["repeats"]),
        ]
    parts.append(
        f"Candidates a minute, from architecture to interval: "
        f"{results['candidates_a_minute']:,.0f}, on one core.\n\n"
        f"{results['date']}, {results['machine']['processor']}."
    )
    return "\n\n".join(parts) + "\n"


def _of_few(
    what: str,
    columns: Sequence[str],
    qualities: dict[str, list[dict[str, Any]]],
    repeats: dict[str, float] | None,
) -> str:
    """The table of what was adapted by a few measurements."""
    rows = [[f"{what}, from {_SAMPLES}", *columns]]
    rows += [[name, *_means(each)] for name, each in qualities.items()]
    return table([*rows, *_again(repeats)], numbers_from=1)


def _again(repeats: dict[str, float] | None) -> list[list[str]]:
    """A row for what was measured twice, if anything was: no predictor could do better."""
    if repeats is None:
        return []
    found = (f"{100 * repeats[key]:.1f}" for key in ("mape", "within_5", "within_10"))
    return [["measuring again", "", "", *found, ""]]


def _described(setting: dict[str, Any]) -> str:
    """A recorded machine: its fingerprint, and the widest instructions that it has."""
    features = setting["cpu_features"]
    names = {"amx-int8": "AMX", "avx512bf16": "AVX-512 with BF16", "avx512f": "AVX-512"}
    widest = next((name for feature, name in names.items() if feature in features), "AVX2")
    return f"the machine {setting['fingerprint']} ({widest})"


def _means(qualities: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for key in _KEYS:
        values = [one[key] for one in qualities if one[key] is not None]
        mean = float(np.mean(values)) if values else None
        scale, digits = (1, 4) if key in ("spearman", "kendall") else (100, 1)
        found.append("" if mean is None else f"{scale * mean:.{digits}f}")
    return found


def _adapted(
    one: Sequence[Record], two: Sequence[Record], splits: int
) -> dict[str, list[dict[str, Any]]]:
    source = LatencyPredictor.fit(one[:150])
    found: dict[str, list[dict[str, Any]]] = {"drawn": [], "chosen": []}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(two))
        half = [two[index] for index in order[: max(len(two) // 2, _SAMPLES)]]
        pool = [record.architecture for record in half]
        best = set(choose_next(source, pool, _SAMPLES, to=two[0].setting))
        for name, few in (
            ("drawn", half[:_SAMPLES]),
            ("chosen", [record for record in half if record.architecture in best]),
        ):
            known = {record.architecture for record in few}
            rest = [record for record in two if record.architecture not in known]
            found[name].append(_quality(source.adapt(few), rest).to_json())
            if name == "drawn":
                for other, each in compared(few, rest, seed=seed).items():
                    found.setdefault(other, []).append(each.to_json())
    return found


def _quality(predictor: LatencyPredictor, records: Sequence[Record]) -> Quality:
    predictions = predictor.predict_workloads(workloads_of(records))
    return quality(predictions, records, n_train=len(predictor.trained_on))


def _speed(predictor: LatencyPredictor) -> float:
    """Of architectures never seen before; of the processor's time, since others may run."""
    space = ArchitectureSpace.of_teacher(read_config(str(packaged_minilm()), "minilm"))
    rng = np.random.default_rng(12345)
    drawn = [space.sample(rng) for _ in range(_CANDIDATES)]
    began = time.process_time()
    predictor.predict(drawn)
    return 60 * _CANDIDATES / (time.process_time() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--device", help="fingerprint of a machine among what ships")
    add_outputs(parser, "predictor.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
