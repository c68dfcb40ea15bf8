"""Reading splits: each kind of task, each format, and how classes get their numbers."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from canao.errors import InputError
from canao.search.data import TaskKind, load_split

from ..support import write_rows

QUESTION = {
    "id": "q1",
    "context": "Ada kept bees in Köln for nine years.",
    "question": "Where?",
    "answers": {"text": ["Köln"], "answer_start": [17]},
}
ROWS: dict[TaskKind, list[dict[str, Any]]] = {
    TaskKind.CLASSIFICATION: [{"text": "fine", "label": 1}, {"text": "poor", "label": 0}],
    TaskKind.PAIR_CLASSIFICATION: [
        {"text": "a cat", "text_pair": "a pet", "label": 2},
        {"text": "a cat", "text_pair": "a dog", "label": 0},
    ],
    TaskKind.REGRESSION: [
        {"text": "a cat", "text_pair": "a pet", "score": 4},
        {"text": "a cat", "text_pair": "a dog", "score": 1.5},
    ],
    TaskKind.TOKEN_CLASSIFICATION: [{"tokens": ["Ada", "ran"], "tags": [1, 0]}],
    TaskKind.QUESTION_ANSWERING: [QUESTION],
    TaskKind.LANGUAGE_MODELLING: [{"text": "It rained."}, {"text": ""}],
}


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "validation.jsonl"])
def test_every_kind_is_recognised(kind: TaskKind, name: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "set" / name, ROWS[kind])
    split = load_split(tmp_path / "set", "dev")
    assert (split.kind, split.name) == (kind, "set")
    for number, (row, given) in enumerate(zip(split.rows, ROWS[kind], strict=True), start=1):
        assert {key: row[key] for key in given} == given
        assert row["place"] == f"{path}, row {number}"


def test_numbers_of_labels(tmp_path: Path) -> None:
    counts = {
        TaskKind.CLASSIFICATION: 2,
        TaskKind.PAIR_CLASSIFICATION: 3,
        TaskKind.REGRESSION: 1,
        TaskKind.TOKEN_CLASSIFICATION: 2,
        TaskKind.QUESTION_ANSWERING: 2,
        TaskKind.LANGUAGE_MODELLING: 0,
    }
    for kind, rows in ROWS.items():
        write_rows(tmp_path / kind / "train.jsonl", rows)
        assert load_split(tmp_path / kind, "train").num_labels == counts[kind]


def test_plain_text_keeps_its_lines(tmp_path: Path) -> None:
    content = "One line.\r\n\nAnother\u2028still the same.\n".encode()
    (tmp_path / "dev.txt.gz").write_bytes(gzip.compress(content))
    split = load_split(tmp_path)
    assert split.kind is TaskKind.LANGUAGE_MODELLING
    assert [row["text"] for row in split.rows] == ["One line.", "", "Another\u2028still the same."]


def test_text_may_say_where_it_comes_from(tmp_path: Path) -> None:
    rows = [{"id": n, "url": "https://a.b", "title": "A", "text": "It rained."} for n in range(2)]
    write_rows(tmp_path / "dev.jsonl", rows)
    assert load_split(tmp_path).kind is TaskKind.LANGUAGE_MODELLING


def test_fields_beside_a_label_are_ignored(tmp_path: Path) -> None:
    about = {"domain": "in", "id": 3, "lable": 7, "pair": "x", "texts": [], "path": "a/b"}
    write_rows(tmp_path / "dev.jsonl", [{"text": "a", "label": n, **about} for n in (0, 1)])
    split = load_split(tmp_path)
    assert (split.kind, [row["label"] for row in split.rows]) == ("classification", [0, 1])


def test_a_separator_of_unicode_does_not_end_a_row(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two\x85three", "label": 0}, {"text": "four", "label": 1}]
    write_rows(tmp_path / "dev.jsonl", rows)
    assert load_split(tmp_path).rows[0]["text"] == "one\u2028two\x85three"


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text(
        '\ufeff{"text": "a", "label": 0}\n\n  \n{"text": "b", "label": 1}\n', encoding="utf-8"
    )
    assert [row["place"].rpartition(" ")[2] for row in load_split(tmp_path).rows] == ["1", "4"]


@pytest.mark.parametrize(
    ("row", "text", "pair"),
    [
        ({"sentence": "a", "idx": 3}, "a", None),
        ({"sentence1": "a", "sentence2": "b"}, "a", "b"),
        ({"premise": "a", "hypothesis": "b"}, "a", "b"),
        ({"question1": "a", "question2": "b"}, "a", "b"),
        ({"question": "a", "sentence": "b"}, "a", "b"),
        ({"question": "a", "passage": "b"}, "a", "b"),
        ({"text": "a", "text_pair": None}, "a", None),
    ],
)
def test_usual_names_of_columns(
    row: dict[str, Any], text: str, pair: str | None, tmp_path: Path
) -> None:
    write_rows(tmp_path / "dev.jsonl", [{**row, "label": 0}, {**row, "label": 1}])
    found = load_split(tmp_path).rows[1]
    assert (found["text"], found.get("text_pair"), found["label"]) == (text, pair, 1)


def test_a_float_label_is_a_score(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": s} for s in (0.0, 2.5)]
    write_rows(tmp_path / "dev.jsonl", rows)
    split = load_split(tmp_path)
    assert split.kind is TaskKind.REGRESSION
    assert [row["score"] for row in split.rows] == [0.0, 2.5]


def test_a_file_is_a_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "mine" / "some.jsonl", ROWS[TaskKind.CLASSIFICATION])
    split = load_split(path, "whatever")
    assert (split.name, len(split.rows)) == ("mine", 2)


def test_several_sets_follow_each_other(tmp_path: Path) -> None:
    write_rows(tmp_path / "one" / "train.jsonl", [QUESTION])
    write_rows(tmp_path / "two" / "train.jsonl.gz", [{**QUESTION, "id": "q2"}])
    split = load_split(f"{tmp_path / 'one'}, {tmp_path / 'two'}", "train")
    assert split.name == "one+two"
    assert [row["id"] for row in split.rows] == ["q1", "q2"]


def test_sets_of_different_kinds_are_not_joined(tmp_path: Path) -> None:
    write_rows(tmp_path / "one" / "train.jsonl", [QUESTION])
    write_rows(tmp_path / "two" / "train.jsonl", ROWS[TaskKind.CLASSIFICATION])
    with pytest.raises(
        InputError,
        match=r"two/train.jsonl, row 1 is classif.*, but .*one/train.jsonl, row 1 is question",
    ):
        load_split(f"{tmp_path / 'one'},{tmp_path / 'two'}", "train")


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": f"row {number}", "label": label} for number, label in enumerate(labels)]


def numbers(folder: Path, split: str = "dev", **options: Any) -> list[int]:
    return [row["label"] for row in load_split(folder, split, **options).rows]


def test_strings_are_numbered_as_in_the_training_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", labelled("dog", "ant", "cat"))
    write_rows(tmp_path / "dev.jsonl", labelled("cat", "dog"))
    assert numbers(tmp_path, "train") == [1 + 1, 0, 1]
    assert numbers(tmp_path) == [1, 2]
    assert load_split(tmp_path).label_names == ("ant", "cat", "dog")
    assert load_split(tmp_path).num_labels == 3


def test_a_broken_training_split_does_not_change_numbers_silently(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", labelled("cat", "dog"))
    (tmp_path / "train.jsonl").write_text("{\n")
    with pytest.raises(InputError, match=r"train\.jsonl, row 1 is not JSON"):
        load_split(tmp_path)


def test_a_model_numbers_strings(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", labelled("negative", "Positive"))
    assert numbers(tmp_path, label_names=("POSITIVE", "NEGATIVE")) == [1, 0]
    with pytest.raises(InputError, match=r"row 1: the label 'negative' is none of good, bad"):
        load_split(tmp_path, label_names=("good", "bad"))


def test_strings_that_differ_in_case_alone_are_different(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", labelled("b-x", "B-X"))
    assert numbers(tmp_path) == [1, 0]


def test_tags_may_be_strings(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", [{"tokens": ["Ada", "ran"], "ner_tags": ["B-P", "O"]}])
    split = load_split(tmp_path)
    assert (split.rows[0]["tags"], split.label_names) == ([0, 1], ("B-P", "O"))


def test_first_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", labelled(0, 1, 1))
    split = load_split(tmp_path)
    assert len(split.first(2).rows) == 2
    assert split.first(None) is split
    for wrong in (0, -1, True):
        with pytest.raises(InputError, match="limit"):
            split.first(wrong)
