"""What narrow weights save: bytes of a bundle, and the time of one row and of a whole text.

    python benchmarks/weight_only.py [--rounds N] [--json FILE]

all-MiniLM-L6-v2 at 128 tokens, and one token through a Llama of 6 layers (hidden 1024, random
weights, no cache of keys: what a decoder's products cost for a token). One thread; the bundles
take turns, and the least time of each counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.machine import machine_record
from common.paths import DOCS, RESULTS
from common.results import replace_text, table, write_json

__all__ = ["main"]

_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 512,
}
_MINILM: dict[str, dict[str, Any]] = {
    "f32": {"precision": "f32"},
    "int8": {"precision": "int8"},
    "int8-weights": {"precision": "int8-weights"},
    "int4-weights, --cosine 0.95": {"precision": "int4-weights", "cosine": 0.95},
}
_ROW: dict[str, dict[str, Any]] = {
    "f32": {"precision": "f32"},
    "bf16": {"precision": "bf16"},
    "int8": {"precision": "int8"},
    "int8-weights": {"precision": "int8-weights"},
    "int4-weights, --cosine 0.95": {"precision": "int4-weights", "cosine": 0.95},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, default=RESULTS / "weight-only.json")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as scratch:
        config = Path(scratch) / "config.json"
        config.write_text(json.dumps(_LLAMA), encoding="utf-8")
        results = {
            "schema": 1,
            "kind": "weight-only",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine_record(),
            "minilm": _measured("minilm", _MINILM, 128, options.rounds, Path(scratch)),
            "row": _measured(str(config), _ROW, 1, options.rounds, Path(scratch)),
        }
    write_json(options.json, results)
    replace_text(options.docs / "weight-only.md", markdown(results))
    return 0


def _measured(
    model: str, asked: dict[str, dict[str, Any]], length: int, rounds: int, scratch: Path
) -> list[dict[str, Any]]:
    import canao
    from canao.compiler.api import compile_model

    entries, sessions = [], []
    for label, wanted in asked.items():
        report = compile_model(
            model, seq_len=length, output=scratch / f"{length}-{len(entries)}", **wanted
        )
        numerics = report.numerics["host"] or {}
        wider = (report.quantization or {}).get("wider", [])
        entries.append(
            {
                "who": label,
                "bytes": report.bytes,
                "cosine": numerics.get("cosine"),
                "wider": len(wider),
                "kernels": dict(next(iter(report.kernels.values()))),
            }
        )
        print(json.dumps(entries[-1]), file=sys.stderr)
        sessions.append(canao.load(report.bundle, device="local"))
    times: list[list[float]] = [[] for _ in sessions]
    ids = [[1000 + i for i in range(length)]]
    for _ in range(rounds):
        for session, found in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session(input_ids=ids)
            found.append(1e3 * (time.perf_counter() - started))
    for entry, session, found in zip(entries, sessions, times, strict=True):
        session.close()
        entry["samples_ms"] = found
    return entries


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    return f"""# What narrow weights save

Made by `python benchmarks/weight_only.py` (the numbers are in
`benchmarks/results/weight-only.json`). One thread; the bundles of a table took turns, and
the least of {len(results["row"][0]["samples_ms"])} calls counts. "Wider" is how many weights the
planner left wider than the precision; the cosine is that of the verification.

## all-MiniLM-L6-v2, 128 tokens

{_table(results["minilm"])}

Many rows meet dequantised weights in bf16 or f32, so int8 stays the fastest where all products are
of int8. Weights in 4 bits alone cost this small model more than the 0.998 that a bundle must have
without `--cosine`: the planner then gives nearly every layer 8 bits.

## One token through a Llama of 6 layers

{_table(results["row"])}

Hidden 1024, 71 million weights, random: each is read once, which is what takes the time. No keys
are cached: attention is over this one token.
"""


def _table(entries: list[dict[str, Any]]) -> str:
    first = min(entries[0]["samples_ms"])
    rows = [["Precision", "MB", "ms", "times f32's speed", "Cosine", "Wider"]]
    for entry in entries:
        least = min(entry["samples_ms"])
        rows.append(
            [
                entry["who"],
                f"{entry['bytes'] / 1e6:.1f}",
                f"{least:.2f}",
                f"{first / least:.2f}",
                f"{entry['cosine']:.5f}",
                str(entry["wider"]),
            ]
        )
    return table(rows, numbers_from=1)


if __name__ == "__main__":
    sys.exit(main())
