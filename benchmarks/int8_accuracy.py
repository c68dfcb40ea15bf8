"""What 8 bits or fewer cost in accuracy: sentence embeddings of all-MiniLM-L6-v2 on the STS
benchmark.

    python benchmarks/int8_accuracy.py --data DIR [--pairs N] [--json FILE]

DIR holds dev.jsonl.gz and train.jsonl.gz of the STS benchmark, one object a line with ``text``,
``text_pair`` and ``score``. Embeddings are the mean of the real positions, normalised; a pair's
similarity is their cosine; the metric is Spearman's correlation with the scores, in PyTorch in
f32 and compiled: in int8, calibrated with canao's own sentences and with training texts, with
symmetric and static ranges, and with weights alone in 8 and in 4 bits.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.machine import machine_record
from common.paths import DOCS, RESULTS
from common.results import replace_text, table, write_json

__all__ = ["main"]

_SEQ_LEN = 64
_ASKED: dict[str, dict[str, Any]] = {
    "own sentences": {"precision": "int8"},
    "training texts": {"precision": "int8"},
    "symmetric ranges": {"precision": "int8", "activations": "symmetric"},
    "static ranges": {"precision": "int8", "activations": "static"},
    "weights in 8 bits": {"precision": "int8-weights"},
    "weights in 4 bits": {"precision": "int4-weights"},
    "weights in 4 bits, --cosine 0.95": {"precision": "int4-weights", "cosine": 0.95},
}
_Array = np.ndarray[Any, Any]
_Hidden = Callable[[list[int]], _Array]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=None, help="the first N only")
    parser.add_argument("--json", type=Path, default=RESULTS / "int8-accuracy.json")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args(arguments)
    results = _measure(options.data, options.pairs)
    write_json(options.json, results)
    replace_text(options.docs / "int8.md", markdown(results))
    return 0


def _measure(data: Path, pairs: int | None) -> dict[str, Any]:
    from tokenizers import Tokenizer

    import canao
    from canao.compiler.api import compile_model
    from canao.compiler.models import load_model
    from canao.search.data import load_split

    dev, train = data / "dev.jsonl.gz", data / "train.jsonl.gz"
    rows = load_split(dev).first(pairs).rows
    source = load_model("minilm")
    tokenizer = Tokenizer.from_str((source.tokenizer_json() or b"").decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(_SEQ_LEN)
    ids = [tokenizer.encode(row[key]).ids for row in rows for key in ("text", "text_pair")]
    scores = np.array([row["score"] for row in rows])
    exact = [_eager(source.module)(one) for one in ids]
    entries = [_entry("PyTorch", "f32", exact, exact, scores)]
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as scratch:
        texts = [row["text"] for row in load_split(train).rows]
        for label, asked in _ASKED.items():
            wanted = {**asked, "calibration": texts} if "training" in label else asked
            report = compile_model(
                source.name,
                seq_len=_SEQ_LEN,
                output=Path(scratch) / label.replace(" ", "-"),
                **wanted,
            )
            with canao.load(report.bundle, device="local") as session:
                found = [session(input_ids=[one])["last_hidden_state"][0] for one in ids]
            entry = _entry(f"canao, {label}", asked["precision"], found, exact, scores)
            quantization = dict(report.quantization or {})
            entries.append({**entry, "bytes": report.bytes, "quantization": quantization})
            print(json.dumps(entries[-1]), file=sys.stderr)
    return {
        "schema": 1,
        "kind": "int8-accuracy",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "pairs": len(rows),
        "sha256": {path.name: _sha256(path) for path in (dev, train)},
        "entries": entries,
    }


def _eager(module: Any) -> _Hidden:
    import torch

    def hidden(ids: list[int]) -> _Array:
        with torch.no_grad():
            given = torch.tensor([ids])
            found = module(input_ids=given, attention_mask=torch.ones_like(given))
        result: _Array = found.last_hidden_state[0].numpy()
        return result

    return hidden


def _entry(
    who: str, precision: str, found: list[_Array], exact: list[_Array], scores: _Array
) -> dict[str, Any]:
    from canao.runtime_harness.text import mean_pool
    from canao.search.metrics import spearman

    embeddings = np.concatenate(
        [mean_pool(h[None].astype(np.float64), np.ones((1, len(h)))) for h in found]
    )
    similarity = (embeddings[::2] * embeddings[1::2]).sum(axis=1)
    cosines = [
        _cosine(one.ravel(), other.ravel()) for one, other in zip(found, exact, strict=True)
    ]
    return {
        "who": who,
        "precision": precision,
        "spearman": spearman(similarity, scores) / 100,
        "least_cosine": min(cosines),
        "mean_cosine": float(np.mean(cosines)),
    }


def _cosine(one: _Array, other: _Array) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    head = ["Who", "Precision", "MB", "Wider", "Spearman x 100", "Least cosine", "Mean cosine"]
    rows = [head]
    for entry in results["entries"]:
        rows.append(
            [
                entry["who"],
                entry["precision"],
                f"{entry['bytes'] / 1e6:.1f}" if "bytes" in entry else "-",
                str(len(entry["quantization"]["wider"])) if "quantization" in entry else "-",
                f"{100 * entry['spearman']:.2f}",
                f"{entry['least_cosine']:.5f}",
                f"{entry['mean_cosine']:.5f}",
            ]
        )
    digests = "\n".join(f"- `{name}`: `{d}`" for name, d in results["sha256"].items())
    return f"""# What 8 bits or fewer cost in accuracy

Made by `python benchmarks/int8_accuracy.py --data DIR` (the numbers are in
`benchmarks/results/int8-accuracy.json`). all-MiniLM-L6-v2 embeds the {results["pairs"]} sentence
pairs of the STS benchmark's development split: mean of the real positions, normalised, cosine.
The cosines here are of the whole last hidden state of each sentence with PyTorch's in f32.

{table(rows, numbers_from=2)}

"MB" is the bundle for one length, "Wider" how many of the 37 weights of linear layers stay wider
than the precision: bf16, or 8 bits in place of 4. All but "training texts" are compilations
without `--calibration`; that takes 32 texts evenly chosen from the training split. "Symmetric
ranges" and "static ranges" are `--activations symmetric` and `static`. The method (smoothing,
rounding) was chosen with the cosines of 24 development sentences in view; their scores, and the
correlation, were not looked at.

Weights in 4 bits cost MiniLM a cosine of about 0.98 where they are all in 4 bits. So under the
usual 0.998 nearly all of them become 8 bits; `--cosine` says how much less will do.

The set: STS Benchmark, English (Cer et al. 2017), official splits of 5,749 and 1,500 pairs, from
`PhilipMay/stsb-multi-mt` (`data/stsb-en-train.csv`, `data/stsb-en-dev.csv`, commit 30de0dec) on
GitHub, as JSON lines. Scores: CC BY-SA 4.0; the texts keep the licences of their sources. SHA-256
of the files that were read:

{digests}
"""


if __name__ == "__main__":
    sys.exit(main())
