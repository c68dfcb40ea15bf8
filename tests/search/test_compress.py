from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import canao
from canao.cli import app
from canao.compiler.compression.costs import model_costs
from canao.compiler.models import load_model
from canao.errors import InputError, NumericsError
from canao.search.compress_result import CompressionResult
from tests.search.support import save_model, sentences, write_rows

STRUCTURE = {"version": 1, "layers": 1, "heads": 1, "ffn": 32}
NO_SUCH = {"match": "*.no_such.weight", "block": [4, 16], "density": 0.5}
QUICK = {
    "epochs": 2,
    "teacher_epochs": 1,
    "batch_size": 8,
    "teacher_batch_size": 8,
    "seq_len": 32,
    "importance_rows": 16,
    "bf16": False,
}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for number in range(count):
        label = number % 2
        word = ("river", "bridge")[label]
        found.append({"text": f"{draw.choice(sentences)} the {word} {number}", "label": label})
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    save_model(folder / "base", "base")
    save_model(folder / "trained", "sequence-classification")
    write_rows(folder / "data" / "train.jsonl.gz", rows(48, 0))
    write_rows(folder / "data" / "dev.jsonl.gz", rows(20, 1))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(place: Path, output: str, recipe: dict[str, Any], **options: Any) -> CompressionResult:
    extra = {key: options.pop(key) for key in ("progress", "dense", "model") if key in options}
    model = extra.pop("model", "base")
    return canao.compress(
        place / model,
        data=place / "data",
        recipe=recipe,
        output=place / output,
        options={**QUICK, **options},
        **extra,
    )


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_smaller_model_comes_out_and_is_found_again(place: Path) -> None:
    seen: list[str] = []
    first = run(place, "plain", STRUCTURE, progress=seen.append)
    assert any(text.startswith("teacher: step") for text in seen)
    assert any(text.startswith("student: step") for text in seen)
    found = load_model(place / "plain")
    costs = model_costs(found.module, 32)
    assert (first.after.flops, first.after.params) == (costs.flops, costs.params)
    assert first.after.flops < first.before.flops
    assert first.after.n == first.before.n == 20
    report = first.training["student"]
    assert report["steps"] == report["planned_steps"] == 2 * -(-report["rows"] // 8)
    assert report["rows"] + report["held_rows"] == 48
    # Whatever was done is kept: nothing trains again, and the same comes out.
    seen.clear()
    again = run(place, "again", STRUCTURE, progress=seen.append)
    assert not any("step" in text for text in seen)
    assert weights(place / "again") == weights(place / "plain")
    assert again.after == first.after
    assert CompressionResult.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_another_seed_gives_another_model(place: Path) -> None:
    run(place, "seed0", STRUCTURE)
    run(place, "seed1", STRUCTURE, seed=1)
    assert weights(place / "seed0") != weights(place / "seed1")


KILLED = """
import json, os, signal, sys, torch
import canao
torch.set_num_threads(1)
place, output, moment, recipe, options = sys.argv[1:]
def tell(text):
    if moment in text:
        os.kill(os.getpid(), signal.SIGKILL)
canao.compress(place + "/base", data=place + "/data", recipe=json.loads(recipe),
               output=place + "/" + output, options=json.loads(options), progress=tell)
"""


def test_a_killed_call_goes_on_to_the_very_same_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With all that has a state: movement, simulated int8, a learned projection, dropout."""
    recipe = {
        **STRUCTURE,
        "hidden": 16,
        "default_precision": "int8",
        "sparsity": [
            {"match": "*.intermediate.dense.weight", "block": [4, 16], "density": 0.5},
        ],
    }
    options = {
        **QUICK,
        "evaluations_per_epoch": 3,
        "sparsity_method": "movement",
        "sparsity_every": 1,
        "quantize_from": 0.3,
        "sparse_at": 0.4,
    }
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "whole"))
    whole = run(place, "whole", recipe, **options)
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "killed"))
    arguments = [place, "killed", "student: step 9 ", json.dumps(recipe), json.dumps(options)]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr.decode()
    assert not (place / "killed").exists()
    assert list(tmp_path.glob("killed/training/*/checkpoints/checkpoint-*/whole.json"))
    seen: list[str] = []
    resumed = run(place, "killed", recipe, progress=seen.append, **options)
    steps = [text for text in seen if text.startswith("student: step")]
    assert not any(text.startswith("teacher: step") for text in seen)
    assert not any(text.startswith("student: step 1 ") for text in steps)
    assert steps
    assert weights(place / "killed") == weights(place / "whole")
    assert resumed.after == whole.after
    assert not list(tmp_path.glob("killed/training/*/checkpoints/*"))  # needed no more


def test_a_loss_that_is_not_finite_stops_with_the_step(place: Path) -> None:
    with pytest.raises(NumericsError, match=r"step \d+.*NaN or infinite.*learning rate"):
        run(place, "nan", STRUCTURE, learning_rate=1e30, warmup=0, epochs=4)
    assert not (place / "nan").exists()


def test_sparse_weights_stay_zero_and_a_dense_model_stands_beside(place: Path) -> None:
    rule = {"match": "*.dense.weight", "block": [4, 16], "density": 0.5}
    recipe = {"version": 1, "sparsity": [rule]}
    found = run(place, "sparse", recipe, model="trained", dense=True, sparsity_every=2)
    assert found.training["teacher"] is None  # it came with a head
    module = load_model(place / "sparse").module
    weight = module.bert.encoder.layer[0].intermediate.dense.weight
    assert 0.4 < float((weight != 0).float().mean()) < 0.6
    assert found.dense is not None
    assert 0.85 * found.after.flops < found.dense.flops <= found.after.flops
    assert found.dense_output is not None
    assert found.difference is not None
    low, high = found.difference.interval
    assert low <= found.difference.value <= high
    assert found.difference.value == found.after.metric - found.dense.metric
    assert CompressionResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    # Without it, the same student is found again.
    alone = run(place, "alone", recipe, model="trained", dense=False, sparsity_every=2)
    assert (alone.dense, alone.difference) == (None, None)
    assert alone.after == found.after


def test_what_was_evaluated_in_another_precision_is_evaluated_again(place: Path) -> None:
    """Of a kept student, when the evaluation learnt to simulate its precision."""
    recipe = {**STRUCTURE, "default_precision": "int4-weights"}
    seen: list[str] = []
    first = run(place, "narrow", recipe)
    (kept,) = (
        path
        for path in Path(os.environ["CANAO_CACHE_DIR"]).glob("training/*/result.json")
        if '"int4-weights, simulated"' in path.read_text()
    )
    old = json.loads(kept.read_text())
    old["evaluation"] |= {"precision": "float32", "value": -1.0}
    kept.write_text(json.dumps(old))
    again = run(place, "narrow-again", recipe, progress=seen.append)
    assert not any("step" in text for text in seen)
    assert again.after == first.after
    assert json.loads(kept.read_text())["evaluation"]["value"] == first.after.metric


def test_importance_may_be_of_magnitudes_alone(place: Path) -> None:
    run(place, "taylor", STRUCTURE)
    run(place, "magnitude", STRUCTURE, importance_rows=0)
    assert weights(place / "taylor") != weights(place / "magnitude")


def test_a_cut_vocabulary_is_taught_by_the_full_one(place: Path) -> None:
    found = run(place, "words", {**STRUCTURE, "embedding": {"vocabulary": 80}})
    module = load_model(place / "words").module
    assert module.get_input_embeddings().weight.shape[0] == 80
    assert found.after.params < found.before.params


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"recipe": {"version": 1, "heads": 9}}, "heads"),
        ({"recipe": {"version": 1, "colour": 9}}, "colour"),
        ({"data": "nowhere"}, "nowhere"),
        ({"options": {"epochs": -1}}, "epochs"),
        ({"options": {"seq_len": 65}}, "64 tokens"),
        ({"metric": "luck"}, "luck"),
        ({"recipe": {**STRUCTURE, "embedding": {"vocabulary": 99}}}, "vocabulary"),
        ({"recipe": {**STRUCTURE, "sparsity": [NO_SUCH]}}, "no_such"),
        ({"options": {**QUICK, "layer_map": [0, 1]}}, "layer_map"),
        ({"options": {**QUICK, "layer_map": [2]}}, "layer_map"),
        ({"teacher": "base"}, "teach"),
        ({"output": "data"}, "no compressed model"),
        ({"split": "test"}, "test"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    place: Path, changes: dict[str, Any], part: str
) -> None:
    given: dict[str, Any] = {
        "data": "data",
        "recipe": STRUCTURE,
        "output": "never",
        "options": QUICK,
    }
    given |= changes
    for name in ("data", "output", "teacher"):
        if name in given:
            given[name] = place / given[name]
    steps: list[str] = []
    with pytest.raises(InputError, match=part):
        canao.compress(place / "base", progress=steps.append, **given)
    assert not any("step" in text for text in steps)
    assert not (place / "never").exists()


def test_the_command_answers_in_json(place: Path, tmp_path: Path) -> None:
    recipe, training = tmp_path / "recipe.json", tmp_path / "training.json"
    recipe.write_text(json.dumps(STRUCTURE))
    training.write_text(json.dumps(QUICK))
    found = CliRunner().invoke(
        app,
        [
            *("compress", str(place / "base"), "--data", str(place / "data")),
            *("--recipe", str(recipe), "--training", str(training), "--no-bf16"),
            *("-o", str(tmp_path / "out"), "--json"),
        ],
        catch_exceptions=False,
    )
    answer = json.loads(found.stdout)
    for side in ("before", "after"):
        assert {"params", "flops", "bytes", "metric"} <= set(answer[side])
    assert 0 <= answer["after"]["metric"] <= 100
    assert answer["notes"] == []
    assert (tmp_path / "out" / "canao.json").is_file()


def test_a_target_that_cannot_be_measured_is_said_first(place: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**STRUCTURE, "default_precision": "int8"}))
    for target, part in (("vulkan-mali", "vulkan-mali"), ("nowhere", "nowhere")):
        found = CliRunner().invoke(
            app,
            [
                *("compress", str(place / "base"), "--data", str(place / "data")),
                *("--recipe", str(recipe), "-o", str(tmp_path / "out")),
                *("--report", str(tmp_path / "page.html"), "--target", target),
            ],
        )
        assert found.exit_code != 0
        assert part in str(found.exception)
    assert not (tmp_path / "out").exists()
