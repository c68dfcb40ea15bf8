"""What is trained on and what is evaluated on, before a head is made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canao.errors import InputError
from canao.search.compress_inputs import read_data

from .data.test_splits import labelled
from .support import save_model, write_rows

TEXT = [{"text": "It rained."}, {"text": "Bees dance."}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    names = {0: "no", 1: "yes", 2: "unsure"}
    head = "sequence-classification"
    return {
        "base": save_model(folder / "base", "base"),
        "three": save_model(folder / "three", head, num_labels=3),
        "named": save_model(
            folder / "named", head, id2label=names, label2id={v: k for k, v in names.items()}
        ),
        "causal": save_model(folder / "causal", "causal-lm"),
    }


def read(model: Path, folder: Path, train: Any, dev: Any) -> Any:
    for split, rows in (("train", train), ("dev", dev)):
        write_rows(folder / f"{split}.jsonl", rows)
    return read_data(str(model), str(folder), str(folder), "dev", None)


def refusal(model: Path, folder: Path, train: Any, dev: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(model, folder, train, dev)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tagged(*tags: int) -> list[dict[str, Any]]:
    return [{"tokens": ["Ada"] * len(tags), "tags": list(tags)}]


def test_the_training_split_says_how_many_classes_there_are(
    models: dict[str, Path], tmp_path: Path
) -> None:
    task, train, judged = read(models["base"], tmp_path, labelled(2, 0, 1), labelled(0, 1))
    assert (task.num_labels, len(train.rows), len(judged.rows)) == (3, 3, 2)
    task, *_ = read(models["base"], tmp_path, tagged(0, 2, 1), tagged(0, 1))
    assert task.num_labels == 3


@pytest.mark.parametrize("make", [labelled, tagged])
def test_a_class_beyond_the_training_split_is_named_with_its_row(
    make: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    told = refusal(models["base"], tmp_path, make(0, 1, 1), make(0, 7))
    row = 2 if make is labelled else 1
    assert told.startswith(f"{tmp_path}/dev.jsonl, row {row}: the label 7 is out of range")
    assert "has 2 classes" in told


@pytest.mark.parametrize(
    ("labels", "row", "absent"),
    [((0, 1, 50, 60), 3, 2), ((1, 2, 1), 1, 0), ((3, 0, 1), 1, 2), ((0, 999_999), 2, 1)],
)
def test_classes_that_skip_a_number_are_refused(
    labels: tuple[int, ...], row: int, absent: int, models: dict[str, Path], tmp_path: Path
) -> None:
    told = refusal(models["base"], tmp_path, labelled(*labels), labelled(0, 1))
    assert told.startswith(f"{tmp_path}/train.jsonl, row {row}: the label {labels[row - 1]} is")
    assert f"no row to train on has the label {absent}" in told


def test_a_trained_head_knows_classes_that_the_rows_do_not_show(
    models: dict[str, Path], tmp_path: Path
) -> None:
    task, *_ = read(models["three"], tmp_path, labelled(0, 2), labelled(1, 0))
    assert task.num_labels == 3
    told = refusal(models["three"], tmp_path, labelled(0, 2), labelled(0, 3))
    assert "dev.jsonl, row 2: the label 3 is out of range" in told
    # Neither two nor fifty-one classes are three: the row that makes them fifty-one is told.
    assert "train.jsonl, row 3" in refusal(
        models["three"], tmp_path, labelled(0, 1, 50), labelled(0, 1)
    )
    assert "has a head for 3" in refusal(models["three"], tmp_path, labelled(0, 1), labelled(0, 1))


def test_names_of_classes_are_the_training_split_s_or_the_model_s(
    models: dict[str, Path], tmp_path: Path
) -> None:
    train = labelled("yes", "no", "unsure")
    task, found, judged = read(models["base"], tmp_path, train, labelled("no", "yes"))
    assert task.label_names == ("no", "unsure", "yes")
    assert [row["label"] for row in judged.rows] == [0, 2]
    task, found, _ = read(models["named"], tmp_path, train, labelled("no", "yes"))
    assert task.label_names == ("no", "yes", "unsure")
    assert [row["label"] for row in found.rows] == [1, 0, 2]
    told = refusal(models["base"], tmp_path, train, labelled("no", "maybe"))
    assert "dev.jsonl, row 2: the label 'maybe' is none of no, unsure, yes" in told


def test_labels_that_one_split_lacks_are_missed_there(
    models: dict[str, Path], tmp_path: Path
) -> None:
    train, dev = (f"{tmp_path}/{split}.jsonl, row 1" for split in ("train", "dev"))
    for model in (models["base"], models["causal"]):
        told = refusal(model, tmp_path, TEXT, labelled(0, 1))
        assert told.startswith(f"{train} has text alone, without the 'label' that {dev} has")
    told = refusal(models["base"], tmp_path, labelled(0, 1), TEXT)
    assert told.startswith(f"{dev} has text alone, without the 'label' that {train} has")
    told = refusal(models["base"], tmp_path, [{"lable": 1, **row} for row in TEXT], TEXT)
    assert told.startswith(f"{train} has no 'label' and no 'score', but 'lable'")
    pair = [{**row, "text_pair": "a"} for row in labelled(0, 1)]
    told = refusal(models["base"], tmp_path, pair, labelled(0, 1))
    assert told.startswith(f"{dev} is classification, but {train} is pair classification")


def test_plain_text_is_language_modelling(models: dict[str, Path], tmp_path: Path) -> None:
    task, *_ = read(models["causal"], tmp_path, TEXT, TEXT)
    assert (task.kind, task.head) == ("language_modelling", "causal-lm")
