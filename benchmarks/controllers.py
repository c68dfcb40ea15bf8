"""Controllers compared on a table of architectures whose latency and accuracy are known.

    python benchmarks/controllers.py [--table FILE] [--seeds 30] [--evaluations 200]

Without ``--table`` it is what ships with canao: the architectures that have both a measured
latency (one thread) and an accuracy by shared weights. FILE has a JSON object a line, with
``architecture``, ``latency`` (any unit, the same in all lines) and ``accuracy`` (a number, higher
is better), for architectures of one space; ``--space FILE`` names it if it is not the one of
MiniLM-L6. Each controller and seed is a line of benchmarks/results/controllers.jsonl and is not
done again for the same table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.controller_report import write_page
from common.options import directory_or_none, one_of
from common.paths import DOCS, RESULTS, ROOT
from common.sharing_report import append, read_lines

from canao.compiler.checkpoint import packaged_minilm, read_config
from canao.search.accuracy.recorded import RECORDED, read_accuracies
from canao.search.controllers import CONTROLLERS, OnTable, Outcome, make
from canao.search.space.architecture import Architecture
from canao.search.space.space import ArchitectureSpace
from canao.search.study.pareto import hypervolume

__all__ = ["main"]

_LATENCIES = ROOT / "search" / "predictor" / "recorded" / "avx512-1t.jsonl"
_SETTINGS = ("free", "limited")


@dataclass(frozen=True, kw_only=True)
class Member:
    architecture: Architecture
    latency: float
    accuracy: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    members, source = _given(options.table) if options.table else _shipped()
    space = _space(options.space)
    members = [member for member in members if space.contains(member.architecture)]
    if len(members) < 2:
        sys.stderr.write("the table has fewer than two architectures of the space\n")
        return 1
    evaluations = min(options.evaluations, len(members))
    digest = _digest(members, evaluations)
    lines = [line for line in read_lines(options.out) if line["table"] == digest]
    done = {(line["setting"], line["controller"], line["seed"]) for line in lines}
    for seed in range(options.seeds):
        for setting in _SETTINGS:
            for name in options.controllers:
                if (setting, name, seed) in done:
                    continue
                curve = _run(name, space, members, setting, seed, evaluations)
                line = {
                    "table": digest,
                    "setting": setting,
                    "controller": name,
                    "seed": seed,
                    "curve": [round(value, 5) for value in curve],
                }
                append(options.out, line)
                lines.append(line)
                sys.stderr.write(f"{setting} {name} {seed}: {curve[-1]:.4f}\n")
    if options.docs is not None:
        # What others are compared with may have been run before, or by another process.
        wanted = [line for line in read_lines(options.out) if line["table"] == digest]
        if all(line["controller"] != "random" for line in wanted):
            sys.stderr.write("no page: the others are compared with random, which was not run\n")
            return 0
        wanted.sort(key=lambda line: (CONTROLLERS.index(line["controller"]), line["seed"]))
        write_page(wanted, {"members": len(members), "source": source}, options.docs)
    return 0


def _run(
    name: str,
    space: ArchitectureSpace,
    members: Sequence[Member],
    setting: str,
    seed: int,
    evaluations: int,
) -> list[float]:
    """The share of the table's hypervolume that was found, after each evaluation."""
    limit = None
    if setting == "limited":
        limit = float(np.median([member.latency for member in members]))
    values = [space.values(member.architecture) for member in members]
    known = {member.architecture.digest: member for member in members}
    inner = make(name, space, seed=seed, trials=evaluations, limit=limit)
    controller = OnTable(inner, space, values)
    slowest = limit or max(member.latency for member in members)
    reference = (math.log(slowest) + 1e-9, min(member.accuracy for member in members) - 1e-9)

    def fits(member: Member) -> bool:
        return limit is None or member.latency <= limit

    whole = hypervolume([_point(member) for member in members if fits(member)], reference)
    points: list[tuple[float, float]] = []
    curve = []
    for trial in range(evaluations):
        asked = controller.ask(trial)
        member = known[space.build(asked).digest]
        over = () if limit is None else (member.latency / limit - 1,)
        # As in a study: what misses the limit is not worth its accuracy.
        outcome = Outcome(
            accuracy=member.accuracy if fits(member) else None,
            latency=member.latency,
            violations=over,
            reason="" if fits(member) else "too slow",
        )
        controller.tell(trial, asked, outcome)
        if fits(member):
            points.append(_point(member))
        curve.append(hypervolume(points, reference) / whole)
    return curve


def _point(member: Member) -> tuple[float, float]:
    return math.log(member.latency), member.accuracy


def _shipped() -> tuple[list[Member], str]:
    """Architectures with both a latency and an accuracy."""
    latencies: dict[str, float] = {}
    for text in _LATENCIES.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        latencies[line["digest"]] = float(
            np.median([line["relative"], *line.get("repeat_relative", [])])
        )
    found = [
        Member(
            architecture=one.architecture,
            latency=latencies[one.architecture.digest],
            accuracy=one.accuracy.value,
        )
        for one in read_accuracies(RECORDED / "sst2.jsonl")
        if one.architecture.digest in latencies
    ]
    return found, "SST-2, shared weights; one thread of the recorded machine"


def _given(path: Path) -> tuple[list[Member], str]:
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        line: dict[str, Any] = json.loads(text)
        found.append(
            Member(
                architecture=Architecture.from_json(line["architecture"]),
                latency=float(line["latency"]),
                accuracy=float(line["accuracy"]),
            )
        )
    return found, path.name


def _space(path: Path | None) -> ArchitectureSpace:
    if path is not None:
        return ArchitectureSpace.load(path)
    return ArchitectureSpace.of_teacher(read_config(str(packaged_minilm()), "minilm"), labels=2)


def _digest(members: Sequence[Member], evaluations: int) -> str:
    facts = [[m.architecture.digest, m.latency, m.accuracy] for m in members]
    return hashlib.sha256(json.dumps([evaluations, facts]).encode()).hexdigest()[:16]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--table", type=Path, metavar="FILE", help="default: what ships")
    parser.add_argument("--space", type=Path, metavar="FILE", help="of the table's architectures")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument(
        "--controllers", type=one_of(CONTROLLERS), default=list(CONTROLLERS), metavar="A,B"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "controllers.jsonl", metavar="FILE")
    parser.add_argument(
        "--docs",
        type=directory_or_none,
        default=DOCS,
        metavar="DIRECTORY",
        help='for the page and its plot; "" writes none',
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
