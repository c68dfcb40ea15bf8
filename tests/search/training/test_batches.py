from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from canao.search.data import Split, TaskKind
from canao.search.training.batches import MULTIPLE, Batches, Collator, padding_of
from canao.search.training.holdout import hold_out

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(lengths, st.integers(1, 17), st.integers(0, 9), st.integers(0, 5), st.booleans())
def test_an_epoch_has_every_row_once_whoever_asks(
    sizes: list[int], batch: int, seed: int, epoch: int, bucketing: bool
) -> None:
    first, again = (Batches(sizes, batch, seed, bucketing=bucketing) for _ in range(2))
    list(first)  # another epoch before it changes nothing
    first.set_epoch(epoch)
    again.set_epoch(epoch)
    order = list(first)
    assert order == list(again)
    assert sorted(order) == list(range(len(sizes)))


def test_epochs_and_seeds_differ() -> None:
    sizes = [7] * 200
    order = Batches(sizes, 8, 0, bucketing=True)
    zero = list(order)
    order.set_epoch(1)
    assert list(order) != zero != list(Batches(sizes, 8, 1, bucketing=True))


def test_bucketing_saves_padding_and_says_how_much() -> None:
    sizes = [5, 60] * 400
    found = padding_of(sizes, 8, 0)
    assert found.real == sum(sizes)
    # Alone, each length is padded to a multiple of 8; mixed, to the longest.
    assert found.bucketed <= 400 * (8 + 64) + 8 * 64
    assert found.shuffled > 0.95 * 800 * 64
    assert found.to_json()["saved"] == round(1 - found.bucketed / found.shuffled, 4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_batches_are_padded_so_that_losses_leave_it_out(sizes: list[int]) -> None:
    features = [
        {"input_ids": [3] * n, "attention_mask": [1] * n, "labels": [1] * n, "row": 0}
        for n in sizes
    ]
    collate = Collator(inputs=("input_ids", "attention_mask"), pad_id=9, longest=30)
    batch = collate(features)
    width = min(-(-max(sizes) // MULTIPLE) * MULTIPLE, 30)
    assert {tuple(t.shape) for t in batch.values()} == {(len(sizes), width)}
    assert batch["attention_mask"].sum() == sum(sizes)
    assert ((batch["input_ids"] == 9) == (batch["attention_mask"] == 0)).all()
    assert ((batch["labels"] == -100) == (batch["attention_mask"] == 0)).all()


def split_of(rows: list[dict[str, object]], kind: TaskKind) -> Split:
    return Split(name="own", split="train", kind=kind, rows=tuple(rows))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=80), st.integers(0, 5))
def test_no_text_is_on_both_sides(texts: list[int], seed: int) -> None:
    rows = [{"context": f"text {n}", "id": str(i)} for i, n in enumerate([*texts, 31])]
    if len(set(texts)) < 2:
        return
    split = split_of(rows, TaskKind.QUESTION_ANSWERING)
    train, held = hold_out(split, 0.1, seed)
    assert {r["context"] for r in train}.isdisjoint(r["context"] for r in held)
    assert sorted(int(r["id"]) for r in [*train, *held]) == list(range(len(rows)))
    assert len(held) >= max(1, round(0.1 * len(rows))) or len({r["context"] for r in train}) == 1
    assert (train, held) == hold_out(split, 0.1, seed)


def test_of_plain_text_the_end_is_held_out() -> None:
    rows: list[dict[str, object]] = [{"text": ""}, {"text": "a"}, {"text": ""}, {"text": "z"}] * 5
    train, held = hold_out(split_of(rows, TaskKind.LANGUAGE_MODELLING), 0.1, 3)
    assert (train, held) == (rows[:18], rows[18:])
