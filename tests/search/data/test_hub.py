"""Data sets of the library ``datasets``: saved to disk, or from a Hub that is not asked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from canao.errors import InputError
from canao.search.data import TaskKind, load_split


def pairs(labels: list[int]) -> datasets.Dataset:
    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["different", "same"]),
            "idx": datasets.Value("int32"),
        }
    )
    count = len(labels)
    return datasets.Dataset.from_dict(
        {
            "sentence1": [f"one {n}" for n in range(count)],
            "sentence2": [f"two {n}" for n in range(count)],
            "label": labels,
            "idx": list(range(count)),
        },
        features=features,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "mrpc"
    datasets.DatasetDict({"validation": pairs([0, 1, 1])}).save_to_disk(str(folder))
    return folder


def test_a_saved_data_set(saved: Path) -> None:
    split = load_split(saved, "dev")
    assert split.kind is TaskKind.PAIR_CLASSIFICATION
    assert (split.name, split.label_names) == ("mrpc", ("different", "same"))
    assert [row["label"] for row in split.rows] == [0, 1, 1]
    assert split.rows[2]["text_pair"] == "two 2"
    assert split.rows[2]["place"] == f"{saved}[validation], row 3"
    with pytest.raises(InputError, match="no split 'train': it has validation"):
        load_split(saved, "train")


def test_names_decide_where_a_model_orders_classes_otherwise(saved: Path) -> None:
    split = load_split(saved, label_names=("SAME", "DIFFERENT"))
    assert [row["label"] for row in split.rows] == [1, 0, 0]
    other = load_split(saved, label_names=("no", "yes"))
    assert [row["label"] for row in other.rows] == [0, 1, 1]


def test_one_saved_split(tmp_path: Path) -> None:
    pairs([0, 1]).save_to_disk(str(tmp_path / "only"))
    assert len(load_split(tmp_path / "only", "dev").rows) == 2


def test_tags_with_names(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER"]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [["Ada", "Byron", "wrote"]], "ner_tags": [[1, 2, 0]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "ner"))
    split = load_split(tmp_path / "ner")
    assert (split.rows[0]["tags"], split.label_names) == ([1, 2, 0], tuple(names))


def test_questions(tmp_path: Path) -> None:
    rows = {
        "id": ["a"],
        "title": ["Bees"],
        "context": ["Bees dance."],
        "question": ["Who dances?"],
        "answers": [{"text": ["Bees"], "answer_start": [0]}],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "squad"))
    split = load_split(tmp_path / "squad")
    assert split.kind is TaskKind.QUESTION_ANSWERING
    assert split.rows[0]["answers"] == {"text": ["Bees"], "answer_start": [0]}


def test_plain_text(tmp_path: Path) -> None:
    rows = {"id": [1, 2], "url": ["a", "b"], "title": ["A", "B"], "text": ["It rained.", ""]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "wiki"))
    assert load_split(tmp_path / "wiki").kind is TaskKind.LANGUAGE_MODELLING
    datasets.Dataset.from_dict({"text": ["It rained.", ""]}).save_to_disk(str(tmp_path / "lines"))
    assert len(load_split(tmp_path / "lines").rows) == 2


def test_a_label_of_another_name_is_not_plain_text(tmp_path: Path) -> None:
    rows = {"text": ["a", "b"], "lable": [0, 1]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match=r"set, row 1 has no 'label'.*'lable' \(is 'label' meant"):
        load_split(tmp_path / "set")


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return pairs([1, 0])

    def get_dataset_split_names(name: str, config: str | None) -> list[str]:
        return ["train", "validation"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", get_dataset_split_names)
    split = load_split("owner/glue:mrpc", "dev")
    assert asked == [("owner/glue", "mrpc", "validation")]
    assert (split.name, len(split.rows)) == ("mrpc", 2)
    assert split.rows[0]["place"] == "owner/glue:mrpc[validation], row 1"
    assert load_split("rotten", "train").name == "rotten"
    assert asked[-1] == ("rotten", None, "train")
    with pytest.raises(InputError, match="no split 'test': it has train, validation"):
        load_split("owner/glue:mrpc", "test")


def test_a_hub_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(datasets, "get_dataset_split_names", fail)
    with pytest.raises(InputError, match=r"'some-set'.*\(no route\): give") as caught:
        load_split("some-set")
    assert "\n" not in str(caught.value)
