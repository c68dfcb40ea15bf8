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
import sys
import time
from collections.abc import Sequence
from typing import Any

from common.building import build
from common.contest import Configuration, Turns, hold
from common.machine import machine_record
from common.models import MODELS, materialize, samples
from common.options import add_outputs, one_of, whole_numbers
from common.paths import cache_directory
from common.report import write_report
from common.results import write_json
from peer import all_peers

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 unless one of our own was wrong or failed."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    cache = cache_directory()
    known = all_peers()
    if options.peers:
        peers = [known[name] for name in options.peers]
    else:
        peers = [peer for peer in known.values() if peer.offered()]
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
                peer.name: build(peer, model, seq_len, cache, results["versions"])
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
            write_json(options.json, results)
    if options.docs:
        write_report(results, options.docs)
    return int(
        any(
            entry["ours"] and entry["status"] != "timed"
            for configuration in results["configurations"]
            for entry in configuration["entries"]
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure canao beside LiteRT, stock IREE and others in one run."
    )
    known = all_peers()
    parser.add_argument(
        "--models", type=one_of(MODELS), default=list(MODELS), help=f"default {','.join(MODELS)}"
    )
    parser.add_argument("--seq-len", type=whole_numbers, help="default: each model's own")
    parser.add_argument("--threads", type=whole_numbers, default=[1, 2], help="default 1,2")
    parser.add_argument("--peers", type=one_of(known), help=f"default {','.join(known)}")
    parser.add_argument("--rounds", type=int, default=Turns.rounds, help="default %(default)s")
    add_outputs(parser, "peers.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
