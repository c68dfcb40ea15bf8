from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import canao
from canao.cli import app
from canao.compiler.compression.costs import model_costs
from canao.compiler.models import load_model
from canao.errors import InputError, NumericsError
from canao.search.compress_result import CompressionResult
from tests.search.compressing import QUICK, STRUCTURE, make_place, run, weights
from tests.search.support import save_model

NO_SUCH = {"match": "*.no_such.weight", "block": [4, 16], "density": 0.5}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    save_model(folder / "trained", "sequence-classification")
    return make_place(folder)


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


@pytest.mark.parametrize("evaluations", [1, 6])
def test_what_is_not_finite_stops_with_the_step(place: Path, evaluations: int) -> None:
    """The loss of a step, or before that the answers to the rows held out."""
    with pytest.raises(NumericsError, match=r"step \d+.*NaN or infinite.*learning rate"):
        run(
            *(place, "nan", STRUCTURE),
            **{"learning_rate": 1e30, "warmup": 0, "epochs": 4},
            evaluations_per_epoch=evaluations,
        )
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
