"""Wrong data: one sentence that names the file and the row, whatever the bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.data import load_split

from ..support import write_rows
from .test_splits import QUESTION, labelled

GOOD = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


def refusal(data: Any, split: str = "dev") -> str:
    with pytest.raises(InputError) as caught:
        load_split(data, split)
    told = str(caught.value)
    assert told.endswith(".")
    assert "\n" not in told
    return told


def answer(**changes: Any) -> dict[str, Any]:
    return {**QUESTION, "answers": {**QUESTION["answers"], **changes}}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": 1}, "has no 'text'"),
        ({"sentence1": "a", "label": 1}, "has no 'sentence2'"),
        ({"text": "a", "text_pair": "b"}, "no 'label' and no 'score'"),
        ({"text": "c"}, "row 3 has text alone, without the 'label' that"),
        ({"text": "c", "id": 3}, "row 3 has text alone, without the 'label' that"),
        ({"text": "c", "label": None}, "'label' is null"),
        ({"text": "c", "lable": 1}, "but 'lable' (is 'label' meant?)"),
        ({"text": "c", "text_piar": "d", "label": 1}, "no 'text_pair', but 'text_piar'"),
        ({"text": "c", "score": 1.0}, "row 3 is regression, but"),
        ({"text": "", "label": 1}, "'text' is empty"),
        ({"text": " \t\n", "label": 1}, "'text' is empty"),
        ({"text": 5, "label": 1}, "'text' is a int, not a string"),
        ({"text": "\ud800", "label": 1}, "half of a surrogate pair"),
        ({"text": "a", "label": True}, "'label' is a bool"),
        ({"text": "a", "label": [1]}, "'label' is a list"),
        ({"text": "a", "label": -1}, "'label' is -1"),
        ({"text": "a", "label": 10**9}, "'label' is 1000000000"),
        ({"text": "a", "label": "one"}, "'one' is a str, but labels before it are not"),
        ({"text": "a", "text_pair": " ", "label": 1}, "pair classification"),
        ({"context": "a", "question": "b"}, "has no 'answers'"),
        ({"answers": {}}, "has no 'context'"),
        ({"tokens": ["a"]}, "has no 'tags'"),
        ([1], "is a JSON list, not an object"),
        ("text", "is a JSON str, not an object"),
    ],
)
def test_a_row_that_does_not_fit(row: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (*GOOD, row)))
    told = refusal(tmp_path)
    assert words in told
    assert f"{path}, row 3" in told


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (answer(answer_start=[16]), "the answer 'Köln' is not at the offset 16"),
        (answer(answer_start=[1000]), "where '' stands"),
        (answer(answer_start=[-1]), "holds -1"),
        (answer(answer_start=["17"]), "holds '17'"),
        (answer(answer_start=[17.0]), "holds 17.0"),
        (answer(answer_start=[]), "1 answers and 0 offsets"),
        (answer(text=[], answer_start=[]), "0 answers"),
        (answer(text="Köln"), "lists 'text' and 'answer_start'"),
        (answer(text=[""]), "'answers' is empty"),
        (answer(text=[3]), "'answers' is a int"),
        ({**QUESTION, "answers": "Köln"}, "lists 'text' and 'answer_start'"),
        ({**QUESTION, "question": ""}, "'question' is empty"),
        ({**QUESTION, "context": " "}, "'context' is empty"),
        ({"text": "a", "lable": 1}, "but 'lable' (is 'label' meant?)"),
        ({"text": "a", "id": "7", "scroe": 1.5}, "but 'scroe' (is 'score' meant?)"),
        ({"text": "a", "Label": 1}, "but 'Label' (is 'label' meant?)"),
        ({"sentence": "a", "stars": 4}, "but 'stars': rename it"),
        ({"text": "a", "label": None}, "'label' is null"),
        ({"text": "a", "text_pair": None}, "but 'text_pair': rename it"),
        ({"text": "a", "textPair": "b", "score": 1.5}, "no 'text_pair', but 'textPair'"),
        ({"text": "a", "text_pair": "", "score": 1}, "'text_pair' is empty"),
        ({"text": "a", "text_pair": "b", "score": "1"}, "'score' is a str"),
        ({"text": "a", "text_pair": "b", "score": True}, "'score' is a bool"),
        ({"text": "a", "text_pair": "b", "score": 10**400}, "not a finite number"),
        ({"tokens": [], "tags": []}, "'tokens' is empty"),
        ({"tokens": ["a", "b"], "tags": [1]}, "2 tokens and 1 tags"),
        ({"tokens": "ab", "tags": [1, 0]}, "'tokens' is a str, not a list"),
        ({"tokens": ["a", " "], "tags": [1, 0]}, "'tokens' is empty"),
        ({"tokens": ["a", "b"], "tags": [1, "x"]}, "'x' is a str"),
        ({"tokens": ["a", "b"], "tags": [1, None]}, "'tags' is a NoneType"),
    ],
)
def test_a_first_row_that_does_not_fit(row: Any, words: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "dev.jsonl.gz", [row])
    told = refusal(tmp_path)
    assert words in told
    assert f"{path}, row 1" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"text": "a", "label": 0}\nnot json\n', "row 2 is not JSON"),
        (b'{"text": "a", "label": 0}\n{"text": "b", "lab', "row 2 is not JSON"),
        (b'{"text": "a", "label": NaN}\n', "row 1 is not JSON: NaN"),
        (b"[" * 100_000 + b"\n", "row 1 is not JSON"),
        (b'{"text": "\xff", "label": 0}\n', "is not text in UTF-8"),
        (b'{"text": "a", "label": 1}\n{"text": "b", "label": 1}\n', "one class alone (1) in 2"),
        (b'{"text": "a", "score": 2}\n{"text": "b", "score": 2}\n', "one score alone (2.0)"),
    ],
)
def test_a_file_that_does_not_fit(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_bytes(content)
    told = refusal(tmp_path)
    assert words in told
    assert str(tmp_path) in told


def test_the_row_without_a_label_is_named_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    for first in ({"text": "c"}, {"text": "c", "url": "https://a.b"}):
        write_rows(path, [first, *GOOD])
        told = refusal(tmp_path)
        assert f"{path}, row 1 has text alone, without the 'label' that {path}, row 2 has" in told
    write_rows(path, [{"text": "a"}, {"text": "b"}, {"text": "c"}, *GOOD])  # most of them
    assert f"{path}, row 1 has text alone, without the 'label' that {path}, row 4" in refusal(path)


def test_the_odd_row_of_a_task_is_one_of_the_fewer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "dev.jsonl", [{"text": "a", "text_pair": "b", "label": 1}, *GOOD])
    assert f"{path}, row 1 is pair classification, but {path}, row 2 is classification" in refusal(
        tmp_path
    )


def test_one_class_alone_names_its_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "dev.jsonl.gz", labelled(1, 1, 1))
    told = refusal(tmp_path)
    assert f"From {path}, row 1, to {path}, row 3 there is one class alone (1) in 3 rows" in told


def test_blank_text_is_empty(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("\n \n")
    assert "is empty" in refusal(tmp_path)


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl.gz"
    whole = gzip.compress(b'{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n' * 50)
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2] ^= 0xFF
    for content in (whole[:-9], whole[:20], b"\x1f\x8b", b"plain", bytes(spoiled)):
        path.write_bytes(content)
        told = refusal(tmp_path)
        assert f"{path}" in told
        assert "broken gzip" in told or "not JSON" in told or "UTF-8" in told
    path.write_bytes(whole[:-9])
    assert "broken gzip" in refusal(tmp_path)


def test_an_absent_split_is_told_with_what_there_is(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", GOOD)
    assert "no split 'dev': it has train.jsonl." in refusal(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no *.jsonl(.gz) and no *.txt(.gz)" in refusal(tmp_path / "empty")


def test_a_split_that_is_there_twice(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", GOOD)
    (tmp_path / "dev.txt").write_text("text\n")
    assert "twice, as dev.jsonl and dev.txt" in refusal(tmp_path)


def test_no_data_at_all(tmp_path: Path) -> None:
    assert "no data at" in refusal(tmp_path / "nowhere" / "at" / "all")
    assert "no name" in refusal(" ")
    write_rows(tmp_path / "dev.jsonl", GOOD)
    assert "empty part" in refusal(f"{tmp_path},")


def test_one_class_after_a_limit_is_fine(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", labelled(1, 1, 0))
    assert len(load_split(tmp_path).first(2).rows) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["text", "text_pair", "label", "score", "tokens", "tags", "context", "question",
             "answers", "answer_start", "id", "sentence1", "x", "a\nb"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(rows=st.lists(json_values, max_size=4))
def test_any_json_is_read_or_refused(rows: list[Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("json")
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _read_or_refused(folder)


@given(content=st.binary(max_size=200), name=st.sampled_from(["dev.jsonl", "dev.jsonl.gz"]))
def test_any_bytes_are_read_or_refused(content: bytes, name: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / name).write_bytes(content)
    _read_or_refused(folder)


@given(data=st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = write_rows(folder / "dev.jsonl.gz", [QUESTION, {**QUESTION, "id": 2}])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    _read_or_refused(folder)


def _read_or_refused(folder: Path) -> None:
    told, rows = "", ()
    try:
        rows = load_split(folder).rows
    except InputError as error:
        told = str(error)
    assert bool(told) is not bool(rows)
    assert "\n" not in told
