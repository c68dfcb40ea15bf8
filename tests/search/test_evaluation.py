"""Evaluating: against transformers row by row, and a bundle beside PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from canao.errors import InputError, NumericsError
from canao.search.data import load_split
from canao.search.evaluation import Evaluation, evaluate, evaluate_model
from canao.search.tasks import task_for

from .support import save_model, sentences, tiny_model, tokenizer, write_rows

CONTEXT = "The old bridge of the river was built by monks who kept bees. " * 3
LENGTHS = {"classes": [16, 32], "pairs": [32], "questions": [32]}
# The head of a tiny model, its options, and the rows that it is evaluated on.
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "classes": (
        "sequence-classification",
        {"num_labels": 3},
        [{"text": text, "label": n % 3} for n, text in enumerate(sentences * 3)],
    ),
    "pairs": (
        "base",
        {},
        [
            {"text": one, "text_pair": other, "score": float(len(one) % 5)}
            for one, other in zip(sentences, (*sentences[1:], "A bee."), strict=True)
        ],
    ),
    "questions": (
        "question-answering",
        {},
        [
            {
                "context": CONTEXT[5 * n :],
                "question": "Who built it?",
                "answers": {"text": [CONTEXT[5 * n :][8:20]], "answer_start": [8]},
            }
            for n in range(8)
        ],
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(model directory, data directory, bundle)."""
    from canao.compiler.api import compile_model

    head, options, rows = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = save_model(folder / "model", head, **options)
    write_rows(folder / "data" / "dev.jsonl.gz", rows)
    compile_model(model, seq_len=LENGTHS[request.param], output=folder / "bundle")
    return model, folder / "data", folder / "bundle"


def test_a_bundle_and_pytorch_agree(case: tuple[Path, Path, Path]) -> None:
    model, data, bundle = case
    there = evaluate(bundle, data, seq_len=32)
    here = evaluate(model, data, seq_len=32)
    assert here.metrics == pytest.approx(there.metrics, abs=1e-3)
    assert here.interval == pytest.approx(there.interval, abs=1e-3)
    assert (here.metric, here.n, here.truncated) == (there.metric, there.n, there.truncated)
    assert (here.backend, there.backend) == ("pytorch", "bundle")
    assert (there.device, there.target, there.precision) == ("local", "host", "f32")
    assert not there.emulated
    assert Evaluation.from_json(json.loads(json.dumps(there.to_json()))) == there
    low, high = here.interval
    assert low <= here.value <= high


def test_batches_do_not_change_the_metric(case: tuple[Path, Path, Path]) -> None:
    model, data, bundle = case
    for given in (model, bundle):
        one, many = (evaluate(given, data, batch_size=size, seq_len=32) for size in (1, 5))
        assert one.metrics == pytest.approx(many.metrics, abs=1e-3)


@pytest.mark.parametrize("case", ["questions"], indirect=True)
def test_a_bundle_is_evaluated_without_torch(case: tuple[Path, Path, Path]) -> None:
    _, data, bundle = case
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers', 'sklearn', 'scipy', 'datasets'):
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
from canao.search.evaluation import evaluate
print(evaluate({str(bundle)!r}, {str(data)!r}).seq_len)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "32", result.stderr


def test_classes_are_those_of_transformers_row_by_row(tmp_path: Path) -> None:
    head, options, rows = CASES["classes"]
    model = save_model(tmp_path / "model", head, **options)
    write_rows(tmp_path / "data" / "dev.jsonl", rows)
    module = tiny_model(head, **options)
    right, cut, seen = 0, 0, set()
    for row in rows:
        ids = tokenizer().encode(row["text"]).ids
        cut += len(ids) > 40
        if len(ids) > 40:
            ids = [*ids[:39], ids[-1]]
        with torch.no_grad():
            answer = int(module(input_ids=torch.tensor([ids])).logits.argmax())
        seen.add(answer)
        right += answer == row["label"]
    found = evaluate(model, tmp_path / "data", seq_len=40)
    assert len(seen) > 1  # or the comparison says little
    assert found.metrics["accuracy"] == pytest.approx(100 * right / len(rows))
    assert (found.metric, found.n, found.task) == ("accuracy", len(rows), "classification")
    assert found.truncated == cut > 0


@pytest.mark.parametrize(
    ("head", "rows", "metric"),
    [
        ("token-classification", [{"tokens": ["Ada", "ran"], "tags": ["B-P", "O"]}], "f1"),
        ("causal-lm", [{"text": text} for text in sentences], "perplexity"),
        ("masked-lm", [{"text": text} for text in sentences], "pseudo_perplexity"),
    ],
)
def test_other_tasks_run(head: str, rows: Any, metric: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", head)
    write_rows(tmp_path / "data" / "dev.jsonl", rows)
    found = evaluate(model, tmp_path / "data")
    assert found.metric == metric
    assert found.seq_len == 64  # what the model allows
    if metric != "f1":
        assert found.n > len(rows)  # tokens


def test_bf16_is_close_and_the_mode_is_put_back(tmp_path: Path) -> None:
    head, options, rows = CASES["classes"]
    data = load_split(write_rows(tmp_path / "dev.jsonl", rows))
    module = tiny_model(head, **options)
    module.train()
    module.bert.pooler.eval()
    threads = torch.get_num_threads()
    task = task_for(data, head=head)
    kept = [
        evaluate_model(module, tokenizer(), task, data.rows, seq_len=32, bf16=bf16, threads=1)
        for bf16 in (False, False, True)
    ]
    assert kept[0].metrics == kept[1].metrics  # no dropout
    assert kept[2].precision == "bf16"
    assert abs(kept[2].value - kept[0].value) < 30
    assert module.training
    assert not module.bert.pooler.training
    assert torch.get_num_threads() == threads


def test_outputs_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    head, options, rows = CASES["classes"]
    data = load_split(write_rows(tmp_path / "dev.jsonl", rows))
    module = tiny_model(head, **options)
    with torch.no_grad():
        module.classifier.bias.fill_(torch.nan)
    with pytest.raises(NumericsError, match="'logits' has values that are not finite"):
        evaluate_model(module, tokenizer(), task_for(data), data.rows, seq_len=32)


def test_progress_is_told(tmp_path: Path) -> None:
    head, options, rows = CASES["classes"]
    data = load_split(write_rows(tmp_path / "dev.jsonl", rows))
    told: list[str] = []
    evaluate_model(
        tiny_model(head, **options), tokenizer(), task_for(data), data.rows,
        seq_len=32, batch_size=8, progress=told.append,
    )  # fmt: skip
    assert told[-1] == "evaluating: 18 of 18 sequences"
    assert len(told) == 3


def test_names_of_a_model_number_the_labels(tmp_path: Path) -> None:
    rows = [{"text": t, "label": "yes" if n % 2 else "no"} for n, t in enumerate(sentences)]
    write_rows(tmp_path / "data" / "dev.jsonl", rows)
    values = []
    for names in ({0: "no", 1: "yes"}, {0: "yes", 1: "no"}):
        model = save_model(
            tmp_path / names[0], "sequence-classification", id2label=names,
            label2id={v: k for k, v in names.items()},
        )  # fmt: skip
        values.append(evaluate(model, tmp_path / "data").value)
    assert sum(values) == pytest.approx(100)  # what is right for one is wrong for the other


@pytest.mark.parametrize("case", ["questions"], indirect=True)
def test_wrong_calls_are_refused(case: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, bundle = case
    write_rows(tmp_path / "text" / "dev.jsonl", [{"text": "a"}])
    for words, given, where, options in (
        ("at most 64 tokens", model, data, {"seq_len": 65}),
        ("at most 32 tokens", bundle, data, {"seq_len": 33}),
        ("whole number from 1", bundle, data, {"seq_len": 0}),
        ("batch size", bundle, data, {"batch_size": 0}),
        ("A seed is", bundle, data, {"seed": -1}),
        ("limit", bundle, data, {"limit": 0}),
        ("no device", bundle, data, {"device": "toaster"}),
        ("is no bundle", model, data, {"device": "vulkan"}),
        ("is no bundle", model, data, {"target": "host"}),
        ("leave bf16 out", bundle, data, {"bf16": True}),
        ("threads must be", model, data, {"threads": 0}),
        ("threads must be", bundle, data, {"threads": 0}),
        ("no metric 'bleu'", bundle, data, {"metric": "bleu"}),
        ("no split 'test'", bundle, data, {"split": "test"}),
        ("no model", tmp_path / "nowhere", data, {}),
        ("needs a model with the head", bundle, tmp_path / "text", {}),
        ("call evaluate_model", torch.nn.Linear(1, 1), data, {}),
    ):
        with pytest.raises(InputError, match=words):
            evaluate(given, where, **options)


def test_a_label_beyond_the_model_is_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 5}]
    path = write_rows(tmp_path / "data" / "dev.jsonl", rows)
    model = save_model(tmp_path / "model", "sequence-classification")
    with pytest.raises(InputError, match=f"{path}, row 2: the label 5 is out of range for model"):
        evaluate(model, tmp_path / "data")


def test_a_row_without_a_label_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data" / "dev.jsonl", [{"text": "a"}, {"text": "b"}])
    model = save_model(tmp_path / "model", "sequence-classification")
    with pytest.raises(InputError, match=f"{path}, row 1 has text alone, without the 'label'"):
        evaluate(model, tmp_path / "data")


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    head, options, rows = CASES["classes"]
    write_rows(tmp_path / "data" / "dev.jsonl", rows)
    tiny_model(head, **options).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"no tokenizer that can be read"):
        evaluate(tmp_path / "model", tmp_path / "data")


def test_json_that_is_no_evaluation_is_refused() -> None:
    for wrong in ([], {}, {"metric": "f1"}):
        with pytest.raises(InputError, match="has the fields"):
            Evaluation.from_json(wrong)


@pytest.mark.parametrize("case", ["questions"], indirect=True)
def test_the_command(case: tuple[Path, Path, Path]) -> None:
    model, data, bundle = case
    canao = Path(sys.executable).parent / "canao"

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        command = [str(canao), "eval", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    result = run(bundle, "--data", data, "--device", "local", "--limit", "5", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["n"] == 5
    assert found["value"] == found["metrics"][found["metric"]]
    assert set(found) >= {"interval", "seconds", "device", "task", "emulated"}
    if found["truncated"]:
        assert "texts are too long for 32 tokens" in result.stderr
    result = run(bundle, "--data", data, "--split", "train")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("canao: ")
    assert len(result.stderr.splitlines()) == 1
    result = run(model, "--data", data)
    assert result.returncode == 0, result.stderr
    assert "PyTorch" in result.stdout
