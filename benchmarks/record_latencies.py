"""Latencies of many architectures on this machine, for the predictor that ships with canao.

    python benchmarks/record_latencies.py --compile-only [--count N] [--seed N] [--work DIRECTORY]
    python benchmarks/record_latencies.py --measure --out FILE [--threads N] [--dispatches]

Architectures are sub-networks of MiniLM-L6's sizes, drawn from the default space so that their
work spreads evenly over all orders of magnitude. They are compiled with drawn weights for the
host and checked against PyTorch once, without tuning; then they are measured, some at a time in
turns with the reference workload, by canao's own protocol with fewer rounds. Some are measured
twice, far apart, which says how well a latency repeats. Both steps go on where they were stopped.

``--out`` gets a JSON object a line for each architecture (what ships is in
search/predictor/recorded, a file for each kind of machine and number of threads); the timing store
in the work directory keeps every sample. While measuring, nothing else should run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.drawn_architectures import draw, read_architectures, write_architectures
from common.paths import RESULTS, cache_directory
from common.recorded import Compiled, compile_one, measure_group, read_lines, write_lines

from canao.compiler.checkpoint import packaged_minilm, read_config
from canao.search.space.architecture import Architecture
from canao.search.space.space import ArchitectureSpace

__all__ = ["main"]

_LIST = RESULTS / "architectures.jsonl"
_GROUP = 8
_REPEATED = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile or measure; 1 where an architecture could not be compiled."""
    options = _parser().parse_args(arguments)
    if not options.list.exists():
        config = read_config(str(packaged_minilm()), "minilm")
        space = ArchitectureSpace.of_teacher(config, labels=2)
        write_architectures(options.list, draw(space, options.count, options.seed))
    drawn = read_architectures(options.list)
    work: Path = options.work or cache_directory() / "latencies"
    work.mkdir(parents=True, exist_ok=True)
    if options.compile_only:
        return _compile(drawn, work)
    if options.out is None:
        raise SystemExit("--measure needs --out FILE")
    return _measure(drawn, work, options.out, options.threads, dispatches=options.dispatches)


def _compile(drawn: Sequence[Architecture], work: Path) -> int:
    failed, seconds = 0, []
    for number, architecture in enumerate(drawn, 1):
        found = compile_one(architecture, work)
        if isinstance(found, str):
            failed += 1
            _tell(f"{number}/{len(drawn)} {architecture.digest}: {found}")
            continue
        if found.seconds is not None:
            seconds.append(found.seconds)
            mean = sum(seconds) / len(seconds)
            _tell(
                f"{number}/{len(drawn)} {architecture.digest}: {found.seconds:.1f} s ({mean:.1f})"
            )
    return int(failed > 0)


def _measure(
    drawn: Sequence[Architecture], work: Path, out: Path, threads: int, *, dispatches: bool
) -> int:
    ready = [found for one in drawn if (found := Compiled.read(work, one)) is not None]
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = read_lines(out)
    once = [one for one in ready if one.digest not in lines]
    # The same ones however many are there already; after all first measurements.
    chosen = {one.digest for one in drawn[:: max(1, len(drawn) // _REPEATED)][:_REPEATED]}
    again = [one for one in ready if one.digest in chosen]
    for repeated, wanted in ((False, once), (True, again)):
        if repeated:
            wanted = [one for one in wanted if not lines[one.digest].get("repeat_relative")]
        for start in range(0, len(wanted), _GROUP):
            group = wanted[start : start + _GROUP]
            for one, line in measure_group(group, work, threads, dispatches=dispatches):
                if repeated:
                    lines[one.digest]["repeat_relative"] = [line["relative"]]
                else:
                    lines[one.digest] = line
            write_lines(out, lines.values())
            what = "again" if repeated else "measured"
            _tell(f"{what} {start + len(group)}/{len(wanted)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--compile-only", action="store_true")
    step.add_argument("--measure", action="store_true")
    parser.add_argument("--count", type=int, default=330, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", type=Path, default=_LIST, help="the architectures")
    parser.add_argument("--work", type=Path, help="bundles and samples; default: in the cache")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dispatches", action="store_true", help="time single dispatches too")
    parser.add_argument("--out", type=Path, help="a JSON object a line; resumed if it is there")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
