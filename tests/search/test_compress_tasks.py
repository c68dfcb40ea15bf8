"""Every kind of task, from rows to a directory that answers as the result says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from canao.compiler.checkpoint import own_head, read_config
from canao.search.evaluation import evaluate
from tests.search.compressing import STRUCTURE, run
from tests.search.support import save_model, sentences, write_rows

CONTEXT = "The old bridge of the river was built by monks. Nobody knows who painted it. Rain fell."


def pairs(draw: random.Random, number: int) -> dict[str, Any]:
    return {
        "text": draw.choice(sentences),
        "text_pair": f"{draw.choice(sentences)} {number}",
        "label": number % 2,
    }


def scores(draw: random.Random, number: int) -> dict[str, Any]:
    return {
        "text": f"{draw.choice(sentences)} {number}",
        "text_pair": draw.choice(sentences),
        "score": float(number % 5),
    }


def tags(draw: random.Random, number: int) -> dict[str, Any]:
    names = ["B-PER", "O", "O", "B-LOC", "I-LOC"]
    return {"tokens": ["Ada", "saw", "the", "old", f"b{number}"], "tags": names}


def questions(draw: random.Random, number: int) -> dict[str, Any]:
    context, answer = f"Note {number}. {CONTEXT}", draw.choice(("monks", "river"))
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"context": context, "question": "Who built it?", "answers": answers}


def texts(draw: random.Random, number: int) -> dict[str, Any]:
    return {"text": f"{draw.choice(sentences)} {number}"}


def gpt2(folder: Path) -> Path:
    save_model(folder, "causal-lm")  # for the tokenizer
    config = tf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        tf.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


CASES: dict[str, tuple[Any, str, str, str]] = {
    "pair": (pairs, "base", "sequence-classification", "accuracy"),
    "regression": (scores, "base", "sequence-classification", "spearman"),
    "tags": (tags, "base", "token-classification", "f1"),
    "questions": (questions, "base", "question-answering", "f1"),
    "causal": (texts, "causal-lm", "causal-lm", "perplexity"),
    "masked": (texts, "masked-lm", "masked-lm", "pseudo_perplexity"),
    "gpt2": (texts, "gpt2", "causal-lm", "perplexity"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for head in ("base", "causal-lm", "masked-lm"):
        save_model(folder / head, head)
    gpt2(folder / "gpt2")
    for name, (make, *_) in CASES.items():
        draw = random.Random(0)
        for split, count in (("train", 32), ("dev", 12)):
            rows = [make(draw, number) for number in range(count)]
            write_rows(folder / name / f"{split}.jsonl", rows)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_task_is_compressed(name: str, place: Path) -> None:
    _, model, head, metric = CASES[name]
    found = run(
        *(place, f"{name}-out", STRUCTURE),
        **{"model": model, "data": name, "seq_len": 48, "learning_rate": 0.01},
    )
    assert found.after.metric_name == metric
    assert found.after.flops < found.before.flops
    assert (found.training["teacher"] is None) == (head == model or model == "gpt2")
    report = found.training["student"]
    assert report["steps"] == report["planned_steps"]
    # The checkpoint that was chosen is the best one, whichever way is better.
    better = min if metric.endswith("perplexity") else max
    assert report["best"] == better(value for _, value in report["curve"])
    assert own_head(read_config(str(found.output), name)) == head
    again = evaluate(found.output, place / name, seq_len=48)
    assert again.metric == metric
    assert again.value == pytest.approx(found.after.metric, rel=1e-4)
