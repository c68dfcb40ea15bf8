from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from canao.errors import InputError
from canao.search.accuracy import Accuracy
from canao.search.accuracy.agreement import agreement
from canao.search.accuracy.recorded import RECORDED, RecordedAccuracy, read_accuracies
from tests.search.accuracy.spaces import architectures, space

_numbers = st.floats(-1e6, 1e6)
accuracies = st.builds(
    Accuracy,
    value=_numbers,
    interval=st.tuples(_numbers, _numbers),
    kind=st.sampled_from(("shared", "adapted", "trained")),
    metric=st.sampled_from(("accuracy", "f1")),
    n=st.integers(1, 10**6),
)
records = st.builds(
    RecordedAccuracy,
    task=st.just("reviews"),
    teacher=st.just("minilm"),
    architecture=architectures(space()),
    accuracy=accuracies,
)


@given(record=records)
def test_records_survive_json(record: RecordedAccuracy) -> None:
    assert RecordedAccuracy.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    record = RecordedAccuracy(
        task="reviews",
        teacher="minilm",
        architecture=space().sample(np.random.default_rng(0)),
        accuracy=Accuracy(value=1.0, interval=(0, 2), kind="shared", metric="f1", n=3),
    )
    good = record.to_json()
    file = tmp_path / "some.jsonl"
    for wrong, part in (
        ("{", "some.jsonl:2"),
        ("[]", "some.jsonl:2"),
        (json.dumps({**good, "version": 2}), "version"),
        (json.dumps({**good, "task": ""}), "task"),
        (json.dumps({**good, "accuracy": None}), "accuracy"),
        (json.dumps({**good, "architecture": {}}), "architecture"),
        (json.dumps({**good, "colour": 1}), "colour"),
    ):
        file.write_text(f"{json.dumps(good)}\n{wrong}\n", encoding="utf-8")
        with pytest.raises(InputError, match=part):
            read_accuracies(file)
    file.write_text(f"{json.dumps(good)}\n", encoding="utf-8")
    assert read_accuracies(file) == [record]
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_accuracies(tmp_path / "none.jsonl")


def test_what_ships_can_be_read() -> None:
    for file in RECORDED.glob("*.jsonl"):
        found = read_accuracies(file)
        assert len({record.architecture.digest for record in found}) == len(found) > 0
        assert {record.accuracy.kind for record in found} == {"shared"}


@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20),
)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    cheap, dear = (list(map(float, side)) for side in zip(*pairs, strict=True))
    found = agreement(cheap, dear)
    assert found.n == len(pairs)
    if len(set(cheap)) > 1 and len(set(dear)) > 1:
        assert found.spearman == pytest.approx(stats.spearmanr(cheap, dear).statistic, abs=1e-9)
        assert found.kendall == pytest.approx(stats.kendalltau(cheap, dear).statistic, abs=1e-9)
    else:
        assert (found.spearman, found.kendall) == (0.0, 0.0)
    for value, (low, high) in (
        (found.spearman, found.spearman_interval),
        (found.kendall, found.kendall_interval),
    ):
        assert -1 <= low <= high <= 1
        assert -1 <= value <= 1


def test_agreement_needs_three_of_both() -> None:
    assert agreement([1, 2, 3, 4], [10, 20, 30, 40]).kendall == 1.0
    assert agreement([1, 2, 3, 4], [4, 3, 2, 1]).spearman == pytest.approx(-1.0)
    for cheap, dear in (([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])):
        with pytest.raises(InputError, match="three"):
            agreement(cheap, dear)
