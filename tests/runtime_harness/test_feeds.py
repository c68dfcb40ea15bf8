from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness.bundle import Manifest, TensorSpec
from canao.runtime_harness.feeds import check_feeds

from .tiny import ENCODER_INPUTS, MIXED_INPUTS


def manifest(*inputs: TensorSpec, vocab_size: int | None = 16) -> Manifest:
    return Manifest(
        canao="0.1.0",
        model={},
        precision="f32",
        fusion="auto",
        inputs=inputs,
        outputs=(),
        modules=(),
        tolerance={"cosine": 0.9},
        vocab_size=vocab_size,
    )


TOKEN_TYPES = TensorSpec(name="token_type_ids", dtype="int32", shape=("batch", "seq"))
ENCODER = manifest(*ENCODER_INPUTS, TOKEN_TYPES)
MIXED = manifest(*MIXED_INPUTS, vocab_size=None)


def mixed(**changes: Any) -> dict[str, Any]:
    return {
        "x": np.ones((2, 3), np.float32),
        "f": np.ones((2, 3), bool),
        "h": np.ones(4, ml_dtypes.bfloat16),
        "n": np.ones(3, np.int64),
        **changes,
    }


@given(
    st.integers(1, 5).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, 15), min_size=length, max_size=length), min_size=1, max_size=4
        )
    ),
    st.sampled_from([list, np.int64, np.int32, np.uint8, np.int16, np.uint64]),
)
def test_ids_of_any_integer_type_are_taken(rows: list[list[int]], kind: Any) -> None:
    given_ids = rows if kind is list else np.array(rows, kind)
    feeds = check_feeds(ENCODER, {"input_ids": given_ids}, longest=5)
    ids, mask, types = feeds.arrays
    assert (ids == np.array(rows)).all()
    assert (feeds.rows, feeds.length) == (len(rows), len(rows[0]))
    assert mask.shape == types.shape == ids.shape
    assert (mask == 1).all()
    assert (types == 0).all()


@given(st.integers(-(2**63), 2**63 - 1))
def test_ids_outside_of_the_vocabulary_are_refused(value: int) -> None:
    ids = np.array([[3, value]], np.int64)
    if 0 <= value < 16:
        check_feeds(ENCODER, {"input_ids": ids}, longest=8)
    else:
        with pytest.raises(InputError, match=rf"{value}, which is not in the range"):
            check_feeds(ENCODER, {"input_ids": ids}, longest=8)


def test_ids_beyond_32_bits_are_refused_without_a_vocabulary_too() -> None:
    open_ended = manifest(*ENCODER_INPUTS, vocab_size=None)
    with pytest.raises(InputError, match="not in the range"):
        check_feeds(open_ended, {"input_ids": [[2**31]]}, longest=8)
    with pytest.raises(InputError, match="not in the range"):
        check_feeds(open_ended, {"input_ids": np.array([[2**64 - 1]], np.uint64)}, longest=8)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "'input_ids' is missing"),
        ({"ids": [[1]]}, "no input 'ids'.*input_ids, attention_mask, token_type_ids"),
        ({"input_ids": [1, 2]}, r"shape \[batch, seq\], not \[2\]"),
        ({"input_ids": 3}, r"shape \[batch, seq\], not \[\]"),
        ({"input_ids": [[[1]]]}, "shape"),
        ({"input_ids": [[]]}, "empty"),
        ({"input_ids": np.ones((0, 4), np.int32)}, "empty"),
        ({"input_ids": [[1], [1, 2]]}, "equal lengths"),
        ({"input_ids": [[1.0]]}, "must be int32, not float64"),
        ({"input_ids": [[True]]}, "must be int32, not bool"),
        ({"input_ids": [["a"]]}, "must be int32"),
        ({"input_ids": None}, "shape"),
        ({"input_ids": [[None]]}, "must be int32, not object"),
        ({"input_ids": [[1] * 9]}, "9 tokens long.*longest length.*8.*truncate=True"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "differ in seq: 2 and 1"),
        ({"input_ids": [[1]], "attention_mask": [[1], [1]]}, "differ in batch: 1 and 2"),
        ({"input_ids": [[1]], "attention_mask": [[2]]}, "only 0 and 1"),
        ({"input_ids": [[1]], "attention_mask": [[0.5]]}, "only 0 and 1"),
        ({"input_ids": [[1]], "attention_mask": [[np.nan]]}, "only 0 and 1"),
        ({"input_ids": [[1]], "token_type_ids": [[2**40]]}, "not in the range"),
    ],
)
def test_wrong_inputs_are_refused_in_one_sentence(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_feeds(ENCODER, inputs, longest=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32, np.float64, np.uint8])
def test_a_mask_of_zeros_and_ones_may_be_of_any_type(kind: Any) -> None:
    mask = np.array([[1, 0, 1]], kind)
    feeds = check_feeds(ENCODER, {"input_ids": [[1, 2, 3]], "attention_mask": mask}, longest=8)
    assert (feeds.arrays[1] == [[1, 0, 1]]).all()


def test_truncation_cuts_every_input_at_its_end() -> None:
    feeds = check_feeds(
        ENCODER,
        {"input_ids": [[1, 2, 3, 4, 99]], "attention_mask": [[1, 1, 1, 0, 5]]},
        longest=3,
        truncate=True,
    )
    assert feeds.length == 3
    assert [array.tolist() for array in feeds.arrays] == [[[1, 2, 3]], [[1, 1, 1]], [[0, 0, 0]]]


def test_inputs_without_rows_and_lengths_are_taken_as_they_are() -> None:
    feeds = check_feeds(MIXED, mixed(), longest=1)
    assert (feeds.rows, feeds.length) == (None, None)
    assert [array.dtype.name for array in feeds.arrays] == [
        "float32",
        "bool",
        "bfloat16",
        "int64",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"x": [[0.5, 1, 2], [3, 4, 5]]},
        {"x": [[0, 1, 2], [3, 4, 5]]},
        {"x": np.ones((2, 3), np.float16)},
        {"h": [0.5, 1.0, 2.0, 3.0]},
        {"n": np.ones(3, np.int8)},
        {"n": [1, 2, 3]},
    ],
)
def test_types_that_lose_nothing_are_taken(changes: dict[str, Any]) -> None:
    check_feeds(MIXED, mixed(**changes), longest=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": np.ones((2, 3), np.float64)},
        {"x": np.ones((2, 3), np.int64)},
        {"x": np.ones((2, 3), bool)},
        {"x": np.ones((3, 2), np.float32)},
        {"x": np.ones((2, 3, 1), np.float32)},
        {"x": [["1", "2", "3"]] * 2},
        {"f": np.ones((2, 3), np.int8)},
        {"h": np.ones(4, np.float32)},
        {"n": np.ones(3, np.float32)},
        {"n": np.ones(3, np.uint64) * np.uint64(2**63)},
    ],
)
def test_types_that_lose_something_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        check_feeds(MIXED, mixed(**changes), longest=1)
