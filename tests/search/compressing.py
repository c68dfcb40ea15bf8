"""What the tests of compression share: a quick training, rows, a call, what it wrote."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import canao
from canao.search.compress_result import CompressionResult
from tests.search.support import save_model, sentences, write_rows

__all__ = ["QUICK", "STRUCTURE", "class_rows", "make_place", "run", "weights"]

STRUCTURE = {"version": 1, "layers": 1, "heads": 1, "ffn": 32}
QUICK = {
    "epochs": 2,
    "teacher_epochs": 1,
    "batch_size": 8,
    "teacher_batch_size": 8,
    "seq_len": 32,
    "importance_rows": 16,
    "bf16": False,
}


def class_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of two classes, told apart by a word."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        label = number % 2
        word = ("river", "bridge")[label]
        found.append({"text": f"{draw.choice(sentences)} the {word} {number}", "label": label})
    return found


def make_place(folder: Path) -> Path:
    """A folder with the model ``base`` and, in ``data``, 48 rows to train on and 20 for dev."""
    save_model(folder / "base", "base")
    write_rows(folder / "data" / "train.jsonl.gz", class_rows(48, 0))
    write_rows(folder / "data" / "dev.jsonl.gz", class_rows(20, 1))
    return folder


def run(place: Path, output: str, recipe: dict[str, Any], **options: Any) -> CompressionResult:
    """Compress a model of ``place``; ``options`` are of the call, or of the training."""
    extra = {
        key: options.pop(key) for key in ("progress", "dense", "model", "data") if key in options
    }
    model, data = extra.pop("model", "base"), extra.pop("data", "data")
    return canao.compress(
        place / model,
        data=place / data,
        recipe=recipe,
        output=place / output,
        options={**QUICK, **options},
        **extra,
    )


def weights(folder: Path) -> str:
    """What tells one model from another."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
