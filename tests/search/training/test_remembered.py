from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.search.training.batches import SEQUENCE, Collator
from canao.search.training.remembered import Room, _place, remember
from canao.search.training.student import Teacher
from tests.search.support import tiny_model

ANY = 2**30
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("targets")


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("head", HEADS)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), data=st.data())
def test_what_is_remembered_is_what_the_teacher_says(
    head: str, where: str, folder: Path, lengths: list[int], data: st.DataObject
) -> None:
    rows = features(lengths)
    chosen = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=5))
    teacher = asked(head)
    room = dataclasses.replace(Room(memory=0, disk=0, folder=folder), **{where: ANY})
    kept = remember(teacher, rows, COLLATE, room, autocast=contextlib.nullcontext)
    assert kept is not None
    assert not list(folder.iterdir())
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


def test_nothing_is_kept_where_there_is_no_room(folder: Path) -> None:
    rows = features([9] * 40)
    teacher = asked("sequence-classification")
    size = 40 * 9 * 32 * 4 * 5  # five tensors [tokens, 32] in float32
    for memory, disk, fits in (
        (size, 0, True),
        (size - 1, size, True),
        (size - 1, size - 1, False),
    ):
        room = Room(memory=memory, disk=disk, folder=folder)
        found = remember(teacher, rows, COLLATE, room, autocast=contextlib.nullcontext)
        assert (found is not None) == fits


def test_answers_to_whole_texts_may_be_all_there_is(folder: Path) -> None:
    rows = features([9, 4, 17])
    teacher = Teacher(tiny_model("sequence-classification"), {}, [], None)
    room = Room(memory=0, disk=0, folder=folder)
    kept = remember(teacher, rows, COLLATE, room, autocast=contextlib.nullcontext)
    assert kept is not None
    found = kept(torch.tensor([2, 0]), 24)
    assert not found.hidden
    assert not found.projections
    batch = COLLATE([rows[2], rows[0]])
    del batch[SEQUENCE]
    torch.testing.assert_close(found.logits["logits"], teacher(batch).logits["logits"])


def test_a_full_disk_is_no_room(folder: Path) -> None:
    rows = features([9] * 40)
    room = Room(memory=0, disk=2**62, folder=folder)
    teacher = asked("sequence-classification")
    # No disk has room for this width.
    assert _place(2**40, 2**17, torch.float32, room) is None
    assert not list(folder.iterdir())
    assert remember(teacher, rows, COLLATE, room, autocast=contextlib.nullcontext) is not None


def test_targets_of_bf16_products_are_kept_in_bf16(folder: Path) -> None:
    rows = features([9, 4])
    room = Room(memory=2 * 13 * 32 * 5, disk=0, folder=folder)
    teacher = asked("sequence-classification")
    shares: list[float] = []
    kept = remember(
        *(teacher, rows, COLLATE, room),
        autocast=contextlib.nullcontext,
        dtype=torch.bfloat16,
        progress=shares.append,
    )
    assert kept is not None
    assert shares == [1.0]
    found = kept(torch.tensor([1]), 8)
    said = teacher(COLLATE([{k: v for k, v in rows[1].items() if k != SEQUENCE}]))
    assert torch.equal(found.hidden[0][0, :4], said.hidden[0][0, :4].bfloat16())
    assert found.logits["logits"].dtype == torch.float32


def test_the_same_rows_are_remembered_to_the_bit(folder: Path) -> None:
    rows = features([3, 17, 9, 40, 1])
    teacher = asked("sequence-classification")
    numbers = torch.arange(5)
    found = []
    for room in (Room(memory=ANY, disk=0, folder=folder), Room(memory=0, disk=ANY, folder=folder)):
        kept = remember(teacher, rows, COLLATE, room, autocast=contextlib.nullcontext)
        assert kept is not None
        found.append(kept(numbers, 40))
    one, other = found
    assert torch.equal(one.hidden[0], other.hidden[0])
    assert torch.equal(one.logits["logits"], other.logits["logits"])
