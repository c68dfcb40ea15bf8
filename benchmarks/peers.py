"""canao beside its peers: the same models, inputs, cores and run.

    python benchmarks/peers.py [--models minilm,bert-base] [--seq-len 128] [--threads 1,2]
                               [--peers litert-int8,canao-int8] [--rounds N] [--json FILE]

Every contestant (``benchmarks/peer/``) runs in a process of its own, pinned to the same
cores, from token ids and mask to the start and end logits of a question-answering head.
Its logits are compared with PyTorch's first; then everyone takes turns, in a new random
order each round, one at a time. Raw samples go to the JSON file, and the table and plot
that are made of it to ``docs/benchmarks/``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.contest import Configuration, Turns, hold
from common.machine import machine_record
from common.models import MODELS, materialize, samples
from common.paths import BENCHMARKS, ROOT, cache_directory
from common.processes import PeerError, PeerProcess, model_fields
from common.protocol import ModelSpec, Peer
from common.report import write_report
from peer import all_peers

__all__ = ["main"]

_BUILD_SECONDS = 1800.0
_DEFAULT_JSON = BENCHMARKS / "results" / "peers.json"
_DOCS = ROOT / "docs" / "benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 unless one of our own was wrong or failed."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    cache = cache_directory()
    known = all_peers()
    peers = [known[name] for name in options.peers or known]
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "peers",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "versions": {},
        "turns": vars(Turns(rounds=options.rounds)),
        "configurations": [],
    }
    planned = []
    for name in options.models:
        model = materialize(name, cache)
        for seq_len in options.seq_len or MODELS[name].seq_lens:
            _tell(f"building {model.title}, {seq_len} tokens")
            artifacts = {
                peer.name: _build(peer, model, seq_len, cache, results["versions"])
                for peer in peers
            }
            planned.append((model, seq_len, artifacts))
    for model, seq_len, artifacts in planned:
        reference = samples(model, seq_len)
        for threads in options.threads:
            _tell(f"{model.title}, {seq_len} tokens, {threads} thread(s)")
            configuration = Configuration(model=model, seq_len=seq_len, threads=threads)
            turns = Turns(rounds=options.rounds)
            results["configurations"].append(
                hold(configuration, artifacts, peers, reference, turns)
            )
            results["seconds"] = round(time.monotonic() - began)
            _write(options.json, results)
    if options.docs:
        write_report(results, options.docs)
    return int(
        any(
            entry["ours"] and entry["status"] != "timed"
            for configuration in results["configurations"]
            for entry in configuration["entries"]
        )
    )


def _build(
    peer: Peer, model: ModelSpec, seq_len: int, cache: Path, versions: dict[str, Any]
) -> Path | PeerError:
    """Have one contestant build its model; note the versions of its packages."""
    began = time.monotonic()
    try:
        with PeerProcess(peer) as process:
            hello = process.request("hello", timeout=60.0)
            versions.setdefault(peer.environment, {}).update(hello["versions"])
            answer = process.request(
                "build",
                timeout=_BUILD_SECONDS,
                model=model_fields(model),
                seq_len=seq_len,
                cache=str(cache),
            )
    except PeerError as error:
        _tell(f"  {peer.name}: {error}")
        return error
    _tell(f"  {peer.name}: ready after {time.monotonic() - began:.0f} s")
    return Path(answer["artifact"])


def _write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, samples on one line per round, so that a diff can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(_layout(results) + "\n")
    temporary.replace(path)


def _layout(value: Any, indent: str = "") -> str:
    """JSON with one line for any list of plain values and for any small object."""
    flat = json.dumps(value)
    nested = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(x, dict | list) for x in nested):
        return flat
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{json.dumps(k)}: {_layout(v, deeper)}" for k, v in value.items()]
        return "{\n" + deeper + f",\n{deeper}".join(lines) + f"\n{indent}" + "}"
    lines = [_layout(item, deeper) for item in value]
    return "[\n" + deeper + f",\n{deeper}".join(lines) + f"\n{indent}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure canao beside LiteRT, stock IREE and PyTorch in one run."
    )
    listed = ", ".join
    parser.add_argument(
        "--models",
        type=_choice(list(MODELS)),
        default=list(MODELS),
        help=f"comma-separated; default all of {listed(MODELS)}",
    )
    parser.add_argument(
        "--seq-len", type=_numbers, help="comma-separated; default: each model's own"
    )
    parser.add_argument("--threads", type=_numbers, default=[1, 2], help="default 1,2")
    parser.add_argument(
        "--peers",
        type=_choice(list(all_peers())),
        help=f"comma-separated; default all of {listed(all_peers())}",
    )
    parser.add_argument("--rounds", type=int, default=Turns.rounds, help="default %(default)s")
    parser.add_argument("--json", type=Path, default=_DEFAULT_JSON, metavar="FILE")
    parser.add_argument(
        "--docs",
        type=lambda text: Path(text) if text else None,
        default=_DOCS,
        metavar="DIRECTORY",
        help='for the table and the plot; "" writes none',
    )
    return parser


def _choice(known: list[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a number below 1")
    return numbers


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
