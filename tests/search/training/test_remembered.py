from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.search.training.batches import SEQUENCE, Collator
from canao.search.training.remembered import remember
from canao.search.training.student import Teacher
from tests.search.support import tiny_model

HEADS = ("sequence-classification", "question-answering", "token-classification")
COLLATE = Collator(inputs=("input_ids", "attention_mask"), pad_id=0, longest=64)


def features(lengths: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": [2, *((7 * row + place) % 90 + 5 for place in range(tokens - 1))],
            "attention_mask": [1] * tokens,
            SEQUENCE: row,
        }
        for row, tokens in enumerate(lengths)
    ]


def asked(head: str) -> Teacher:
    return Teacher(tiny_model(head), {-1: -1, 0: 1}, [0], None)


@pytest.mark.parametrize("head", HEADS)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), data=st.data())
def test_what_is_remembered_is_what_the_teacher_says(
    head: str, lengths: list[int], data: st.DataObject
) -> None:
    rows = features(lengths)
    chosen = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=5))
    teacher = asked(head)
    kept = remember(teacher, rows, COLLATE, autocast=contextlib.nullcontext)
    assert kept is not None
    batch = COLLATE(chosen)
    sequences = batch.pop(SEQUENCE)
    mask = batch["attention_mask"]
    said, found = teacher(batch), kept(sequences, mask.shape[1])
    assert said.logits.keys() == found.logits.keys()
    pairs = [(said.logits[name], found.logits[name]) for name in said.logits]
    pairs += [(said.hidden[place], found.hidden[place]) for place in (-1, 0)]
    pairs += list(zip(said.projections[0], found.projections[0], strict=True))
    for one, other in pairs:
        assert one.shape == other.shape
        real = mask.bool() if one.shape[:2] == mask.shape else slice(None)
        torch.testing.assert_close(one[real], other[real], rtol=1e-4, atol=1e-5)
    for other in found.hidden.values():
        assert not other[~mask.bool()].any()


def test_nothing_is_kept_where_there_is_no_room() -> None:
    rows = features([9] * 40)
    teacher = asked("sequence-classification")
    size = 40 * (9 * 32 * 4 * 5 + 8)  # five tensors [tokens, 32], and two logits, in float32
    nothing = contextlib.nullcontext
    assert remember(teacher, rows, COLLATE, autocast=nothing, most_bytes=size) is not None
    assert remember(teacher, rows, COLLATE, autocast=nothing, most_bytes=size - 1) is None


def test_the_same_rows_are_remembered_to_the_bit() -> None:
    rows = features([3, 17, 9, 40, 1])
    teacher = asked("sequence-classification")
    twice = [remember(teacher, rows, COLLATE, autocast=contextlib.nullcontext) for _ in range(2)]
    numbers = torch.arange(5)
    assert twice[0] is not None
    assert twice[1] is not None
    one, other = (kept(numbers, 40) for kept in twice if kept is not None)
    assert torch.equal(one.hidden[0], other.hidden[0])
    assert torch.equal(one.logits["logits"], other.logits["logits"])
