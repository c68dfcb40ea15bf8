"""What a bundle answers is what PyTorch answers, within what its precision allows.

Each row's label is PyTorch's own answer in float32, so PyTorch scores 100 and what a bundle falls
short of it is what its numbers changed. Plain text has no labels: there the two perplexities are
compared.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from canao.compiler.api import compile_model
from canao.search.data import load_split
from canao.search.evaluation import evaluate
from canao.search.evaluation_pytorch import model_inputs
from canao.search.tasks import collate, task_for
from canao.targets import get
from tests.runtime_harness.tiny import needed

from .support import save_model, sentences, tiny_model, tokenizer, write_rows

LENGTH = 32
TEXTS = [
    f"{word} {text}" for text in sentences for word in ("A bee", "Old", "Who", "9 monks", "Rain")
]
CONTEXT = "The old bridge of the river was built by monks who kept bees."
Rows = list[dict[str, Any]]
# The head of a tiny model, its options, and rows whose labels are replaced by its own answers.
HEADS: dict[str, tuple[str, dict[str, Any], Rows]] = {
    "classes": (
        "sequence-classification",
        {"num_labels": 3},
        [{"text": text, "label": n % 3} for n, text in enumerate(TEXTS)],
    ),
    "scores": (
        "sequence-classification",
        {"num_labels": 1},
        [{"text": text, "text_pair": "A bee.", "score": n / 4} for n, text in enumerate(TEXTS)],
    ),
    "tags": (
        "token-classification",
        {"num_labels": 3},
        [
            {"tokens": text.split()[:4], "tags": [0, 1, 2, 0][: len(text.split())]}
            for text in TEXTS
        ],
    ),
    "questions": (
        "question-answering",
        {"seed": 2},  # logits far from 0: beside 0, rounding decides the cosine of a short text
        [
            {
                "context": CONTEXT[4 * n :],
                "question": "Who built it?",
                "answers": {"text": [CONTEXT[4 * n :]], "answer_start": [0]},
            }
            for n in range(8)
        ],
    ),
    "causal": ("causal-lm", {}, [{"text": text} for text in sentences]),
    "masked": ("masked-lm", {}, [{"text": text} for text in sentences]),
}
# Where each precision runs, how far a metric may fall below 100, and the log of a perplexity move.
PRECISIONS: dict[str, tuple[str, str, float, float]] = {
    "f32": ("host", "local", 1e-3, 1e-5),
    "bf16": ("host", "local", 2.0, 0.01),
    "f16": ("vulkan-llvmpipe", "vulkan", 2.0, 0.01),
    "int8": ("host", "local", 5.0, 0.02),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("head", HEADS)
def test_a_bundle_answers_as_pytorch_does(head: str, precision: str, tmp_path: Path) -> None:
    target, device, below, apart = PRECISIONS[precision]
    if precision not in get(target).precisions:
        pytest.skip(f"{target} has no {precision} here")
    needed(device)
    kind, options, rows = HEADS[head]
    options = {"num_hidden_layers": 1, "initializer_range": 0.3, "seed": 3, **options}
    model = save_model(tmp_path / "model", kind, **options)
    path = write_rows(tmp_path / "data" / "dev.jsonl", rows)
    write_rows(path, labelled(tiny_model(kind, **options), kind, path, rows))
    compile_model(
        model, target=target, seq_len=LENGTH, precision=precision, output=tmp_path / "bundle"
    )
    here = evaluate(model, path, seq_len=LENGTH)
    there = evaluate(tmp_path / "bundle", path, seq_len=LENGTH, device=device)
    assert (there.backend, there.precision, there.target) == ("bundle", precision, target)
    assert (here.metric, here.n, here.truncated) == (there.metric, there.n, there.truncated)
    if "perplexity" in here.metric:
        assert abs(math.log(there.value / here.value)) < apart
    else:
        assert here.value == pytest.approx(100)
        assert there.value > 100 - below


def labelled(module: Any, head: str, path: Path, rows: Rows) -> Rows:
    """The rows with the model's own answers for labels; plain text as it is."""
    split = load_split(path)
    task = task_for(split, head=head, num_labels=module.config.num_labels)
    features = task.features(split.rows, tokenizer(), LENGTH)
    batch = collate(features, inputs=model_inputs(module), labels=False)
    with torch.no_grad():
        found = module(**{name: torch.from_numpy(array) for name, array in batch.items()})
    outputs = {name: found[name].numpy() for name in found if "logits" in name}
    answers = task.decode(task.compact(outputs, features), features, split.rows)
    if "question" in rows[0]:
        answers = [
            {"text": [answer], "answer_start": [row["context"].index(answer)]}
            for answer, row in zip(answers, rows, strict=True)
        ]
    name = next((n for n in ("label", "score", "tags", "answers") if n in rows[0]), None)
    if name is None:
        return rows
    return [{**row, name: answer} for row, answer in zip(rows, answers, strict=True)]
