"""Windows over long contexts, and answers from logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError, NumericsError
from canao.search.data import Split, TaskKind
from canao.search.tasks import Feature, Task, task_for

from ..support import tokenizer

WORDS = ("the", "old", "river", "of", "bees", "x", "bridge,", "Köln", "was", "(built)", "9", "q-r")
SPECIAL = 3


def row(context: str, question: str, start: int, text: str) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"id": "1", "context": context, "question": question, "answers": answers}


def task(*rows: dict[str, Any]) -> Task:
    split = Split(name="q", split="dev", kind=TaskKind.QUESTION_ANSWERING, rows=rows)
    return task_for(split, head="question-answering")


def decoded(one: dict[str, Any], features: list[Feature], outputs: list[Any]) -> str:
    found: list[str] = task(one).decode(outputs, features, [one])
    return found[0]


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=150))
    blanks = draw(st.lists(st.sampled_from([" ", "  ", "\n"]), min_size=len(words), max_size=150))
    begin = draw(st.integers(0, len(words) - 1))
    count = draw(st.integers(1, min(4, len(words) - begin)))
    pieces = [word + blank for word, blank in zip(words, blanks, strict=False)]
    context = "".join(pieces)
    start = len("".join(pieces[:begin]))
    text = "".join(pieces[begin : begin + count]).rstrip()
    question = " ".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)))
    return row(context, question, start, text)


@given(one=questions(), seq_len=st.integers(60, 192))
def test_every_answer_that_fits_is_found_from_perfect_logits(
    one: dict[str, Any], seq_len: int
) -> None:
    start, text = one["answers"]["answer_start"][0], one["answers"]["text"][0]
    features = task(one).features([one], tokenizer(), seq_len)
    outputs, held = [], 0
    for feature in features:
        first, last = np.zeros(len(feature["input_ids"])), np.zeros(len(feature["input_ids"]))
        begins = [i for i, o in enumerate(feature["offsets"]) if o and o[0] == start]
        ends = [i for i, o in enumerate(feature["offsets"]) if o and o[1] == start + len(text)]
        if begins and ends:
            first[begins[0]], last[ends[-1]] = 9, 9
            held += 1
            # What is taught is what is looked for.
            assert (feature["start_positions"], feature["end_positions"]) == (begins[0], ends[-1])
        else:
            assert (feature["start_positions"], feature["end_positions"]) == (0, 0)
        outputs.append((first, last))
    tokens = len(tokenizer().encode(text, add_special_tokens=False).ids)
    if tokens <= min(30, seq_len // 3):
        assert held >= 1
        assert decoded(one, features, outputs) == text


@given(one=questions(), seq_len=st.integers(20, 80))
def test_windows_cover_the_context_in_order(one: dict[str, Any], seq_len: int) -> None:
    features = task(one).features([one], tokenizer(), seq_len)
    whole = tokenizer().encode(one["context"], add_special_tokens=False)
    seen: set[tuple[int, int]] = set()
    before = (-1, -1)
    for feature in features:
        ids = feature["input_ids"]
        assert len(ids) <= seq_len
        assert len(ids) == len(feature["attention_mask"]) == len(feature["token_type_ids"])
        inside = [offset for offset in feature["offsets"] if offset is not None]
        # The question and special tokens are of the first kind, the context of the second.
        types = feature["token_type_ids"]
        assert all(t == 1 for t, o in zip(types, feature["offsets"], strict=True) if o)
        assert inside[0] > before
        before = inside[0]
        seen.update(inside)
    assert seen == set(whole.offsets)


def test_the_best_window_wins_and_the_first_of_equals() -> None:
    context = " ".join("abcdefghij" * 6)
    one = row(context, "x?", 0, "a")
    features = task(one).features([one], tokenizer(), 40)
    assert len(features) > 2
    outputs = [(np.zeros(len(f["input_ids"])), np.zeros(len(f["input_ids"]))) for f in features]
    place = features[1]["offsets"].index((60, 61))
    for array in outputs[1]:
        array[place] = 5
    assert decoded(one, features, outputs) == context[60:61]
    first = next(i for i, offset in enumerate(features[0]["offsets"]) if offset)
    for array in outputs[0]:
        array[first] = 5
    assert decoded(one, features, outputs) == "a"


def test_an_answer_is_no_longer_than_thirty_tokens_and_begins_before_it_ends() -> None:
    context = " ".join("abcdefghij" * 5)
    one = row(context, "x?", 0, "a")
    (feature,) = task(one).features([one], tokenizer(), 64)
    size = len(feature["input_ids"])
    begin = next(i for i, offset in enumerate(feature["offsets"]) if offset)
    start, end = np.zeros(size), np.zeros(size)
    start[begin] = 9
    end[begin + 29] = 8
    end[begin + 30] = 9
    assert decoded(one, [feature], [(start, end)]) == context[: 2 * 30 - 1]
    start, end = np.zeros(size), np.zeros(size)
    start[begin + 5], end[begin + 4], end[begin + 6] = 9, 9, 8
    assert decoded(one, [feature], [(start, end)]) == context[10:13]


def test_the_question_is_no_answer() -> None:
    one = row("a b c", "old bridge?", 0, "a")
    (feature,) = task(one).features([one], tokenizer(), 64)
    size = len(feature["input_ids"])
    start, end = np.full(size, 3.0), np.full(size, 3.0)
    start[0] = end[0] = start[1] = end[2] = 9
    answer = decoded(one, [feature], [(start, end)])
    assert answer
    assert answer in one["context"]


def test_a_long_question_is_cut_and_counted() -> None:
    short, long = row("a b c", "who?", 0, "a"), row("a b c", "who " * 200, 0, "a")
    features = task(short).features([short, long], tokenizer(), 192)
    assert [f["truncated"] for f in features] == [False, True]
    # 64 tokens of the question, 5 of the context and special ones.
    assert len(features[1]["input_ids"]) == 64 + 3 + SPECIAL


def test_metrics_and_length() -> None:
    one, other = row("a b c", "x?", 0, "a b"), row("a b c", "x?", 4, "c")
    made = task(one, other)
    assert (made.primary, made.default_seq_len) == ("f1", 192)
    # "a" is an article.
    assert made.metrics(["b", "b c"], [one, other]) == {
        "f1": pytest.approx((100 + 200 / 3) / 2),
        "exact_match": 50.0,
    }


def test_too_short_a_length_is_refused() -> None:
    one = row("a b c", "x?", 0, "a")
    with pytest.raises(InputError, match="too little room"):
        task(one).features([one], tokenizer(), 4)


def test_outputs_that_are_absent_or_not_finite_are_refused() -> None:
    one = row("a b c", "x?", 0, "a")
    features = task(one).features([one], tokenizer(), 64)
    size = len(features[0]["input_ids"])
    with pytest.raises(InputError, match=r"no output 'start_logits' \(it has logits\)"):
        task(one).compact({"logits": np.zeros((1, 2))}, features)
    spoiled = {name: np.full((1, size + 4), np.nan) for name in ("start_logits", "end_logits")}
    with pytest.raises(NumericsError, match="not finite"):
        task(one).compact(spoiled, features)
    for array in spoiled.values():
        array[:, :size] = 0  # what is left of NaN is padding
    assert len(task(one).compact(spoiled, features)) == 1
