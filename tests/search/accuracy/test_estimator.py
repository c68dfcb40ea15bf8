from __future__ import annotations

import copy
import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.errors import InputError
from canao.search.accuracy import Accuracy, SharingOptions
from canao.search.accuracy.adaptation import _rebuild, inherited
from canao.search.accuracy.estimator import AccuracyEstimator
from canao.search.accuracy.sandwich import sandwich
from canao.search.space.architecture import MatrixForm
from canao.search.space.scalings import extremes
from canao.search.training import TrainingOptions
from tests.search.accuracy.spaces import dense_space, space
from tests.search.support import save_model, sentences, write_rows

QUICK = {
    "epochs": 2,
    "teacher_epochs": 1,
    "batch_size": 8,
    "teacher_batch_size": 8,
    "seq_len": 32,
    "importance_rows": 16,
    "bf16": False,
}
SPACE = {"layers": (1, 2), "vocabularies": (80, 99)}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    words = ("river", "bridge")
    return [
        {"text": f"{draw.choice(sentences)} the {words[n % 2]} {n}", "label": n % 2}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accuracy")
    save_model(folder / "trained", "sequence-classification")
    write_rows(folder / "data" / "train.jsonl.gz", rows(56, 0))
    write_rows(folder / "data" / "dev.jsonl.gz", rows(4, 1))
    return folder


def sharing(**changes: Any) -> SharingOptions:
    training = {"epochs": 1, "batch_size": 8, "evaluations_per_epoch": 2, **changes}
    return SharingOptions.from_json({"judged": 1, "training": training})


def prepare(place: Path, **options: Any) -> AccuracyEstimator:
    given = {
        "data": place / "data",
        "space": space(**SPACE),
        "options": TrainingOptions.from_json(QUICK),
        "sharing": sharing(),
        **options,
    }
    return AccuracyEstimator.prepare(place / "trained", **given)


def digest(estimator: AccuracyEstimator) -> str:
    state = estimator._supernet.model.state_dict()
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest()


def test_killed_sharing_goes_on_to_the_very_same_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "whole"))
    seen: list[str] = []
    whole = prepare(place, progress=seen.append)
    assert any(text.startswith("shared weights: step") for text in seen)

    def kill(text: str) -> None:
        if "step 5 " in text:
            raise KeyboardInterrupt

    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "killed"))
    with pytest.raises(KeyboardInterrupt):
        prepare(place, progress=kill)
    seen.clear()
    resumed = prepare(place, progress=seen.append)
    assert not any(text.startswith("shared weights: step 3 ") for text in seen)
    assert digest(resumed) == digest(whole)
    # Kept, so that nothing trains again.
    seen.clear()
    assert digest(prepare(place, progress=seen.append)) == digest(whole)
    assert not any("step" in text for text in seen)
    # The teacher that it was cut from is another model.
    teacher = AccuracyEstimator.prepare(
        place / "trained",
        data=place / "data",
        space=space(**SPACE),
        options=TrainingOptions.from_json(QUICK),
        sharing=sharing(learning_rate=1e-9),
    )
    assert digest(teacher) != digest(whole)


def test_an_architecture_is_judged_on_rows_held_out(place: Path) -> None:
    estimator = prepare(place)
    texts = {row["text"] for row in estimator.data.held}
    assert not texts & {row["text"] for row in estimator.data.train}
    before = digest(estimator)
    for architecture in sandwich(estimator.space, 4, (1,)):
        found = estimator.evaluate(architecture)
        assert found is estimator.evaluate(architecture)
        assert (found.kind, found.metric, found.n) == ("shared", "accuracy", len(texts))
        assert found.interval[0] <= found.value <= found.interval[1]
        assert Accuracy.from_json(found.to_json()) == found
    assert digest(estimator) == before


def test_a_few_steps_change_a_copy_alone(place: Path) -> None:
    estimator = prepare(place)
    before = digest(estimator)
    smallest = extremes(estimator.space)[1]
    assert smallest.layers[0].up.density < 1
    seen: list[str] = []
    found = estimator.evaluate(smallest, steps=3, progress=seen.append)
    assert found.kind == "adapted"
    assert [text.partition(",")[0] for text in seen][-1].startswith("short training: step 3 of 3")
    assert digest(estimator) == before
    with pytest.raises(InputError, match="steps"):
        estimator.evaluate(smallest, steps=-1)


def test_a_few_steps_begin_with_what_is_rebuilt(place: Path) -> None:
    estimator = prepare(place)
    sparse = estimator.space.sample(np.random.default_rng(5))
    form = MatrixForm(density=0.25)
    layers = tuple(replace(one, up=form, down=form) for one in sparse.layers)
    sparse = replace(sparse, layers=layers, vocabulary=99)
    words = estimator._words_of(99)
    model, _, _ = inherited(estimator._supernet, sparse, words.tokenizer, estimator.data.train)
    batches = estimator._batches_of(sparse, words)
    before = outputs(model, batches)
    zeroed = copy.deepcopy(model)
    recipe = sparse.recipe(estimator.teacher_config)
    BlockSparsifier(zeroed, recipe).step(1.0)
    _rebuild(model, sparse, batches, bf16=False)
    kept = outputs(model, batches)
    # The blocks that stay are those that training keeps.
    BlockSparsifier(model, recipe).step(1.0)
    assert torch.equal(outputs(model, batches), kept)
    assert (kept - before).square().mean() < (outputs(zeroed, batches) - before).square().mean()


def outputs(model: Any, batches: Any) -> torch.Tensor:
    with torch.no_grad():
        found = [model(**batch, output_hidden_states=True).hidden_states[-1] for batch in batches]
    return torch.cat([hidden.flatten() for hidden in found])


def test_the_sandwich_has_both_extremes_and_follows_its_seed() -> None:
    whole = space(embedding_int8=(False, True))
    largest, smallest = extremes(whole)
    assert largest.layers[0].up.density == 1.0
    assert largest.layers[0].up.precision == "f32"
    assert (largest.embedding_rank, largest.embedding_int8, len(largest.layers)) == (
        None,
        False,
        3,
    )
    assert (smallest.embedding_rank, smallest.embedding_int8, len(smallest.layers)) == (8, True, 1)
    assert smallest.layers[0].up.precision == "int8"
    assert smallest.costs().bytes < largest.costs().bytes
    assert sandwich(whole, 3, (1, 2)) == sandwich(whole, 3, (1, 2))
    assert sandwich(whole, 3, (1, 2))[2:] != sandwich(whole, 3, (1, 3))[2:]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"space": dense_space(layers=(1, 2), ffn=(96,))}, "ffn"),
        ({"space": dense_space(layers=(2,), head_size=8)}, "head_size"),
        ({"teacher": "minilm"}, "cannot teach"),
    ],
)
def test_what_cannot_be_shared_is_refused(place: Path, options: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        prepare(place, **options)


def test_sharing_options_survive_json_and_name_what_is_wrong() -> None:
    options = SharingOptions(networks=3, judged=0)
    assert SharingOptions.from_json(options.to_json()) == options
    for wrong, part in (
        ({"networks": 0}, "networks"),
        ({"judged": True}, "judged"),
        ({"training": {"relation_weight": 1.0}}, "relation_weight"),
        ({"training": {"colour": 1}}, "colour"),
        ({"training": []}, "training"),
        ({"colour": 1}, "colour"),
        ({"version": 2}, "version"),
        ([], "table"),
    ):
        with pytest.raises(InputError, match=part):
            SharingOptions.from_json(wrong)


def test_accuracies_name_what_is_wrong() -> None:
    good = Accuracy(value=80.0, interval=(78.0, 82.0), kind="shared", metric="f1", n=9).to_json()
    for name, wrong in (
        ("value", "high"),
        ("value", float("nan")),
        ("interval", [1.0]),
        ("kind", "guessed"),
        ("metric", ""),
        ("n", 0),
        ("version", 2),
    ):
        with pytest.raises(InputError, match=name):
            Accuracy.from_json({**good, name: wrong})
    with pytest.raises(InputError, match="colour"):
        Accuracy.from_json({**good, "colour": 1})
