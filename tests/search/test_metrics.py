"""Metrics beside scikit-learn's and SciPy's, and beside answers scored by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from canao.errors import InputError
from canao.search import metrics
from canao.search.data import Split, TaskKind
from canao.search.metrics_answers import answer_f1, exact_match, normalise
from canao.search.metrics_tags import are_span_tags, spans
from canao.search.tasks import task_for

classes = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1)
)
numbers = st.lists(
    st.tuples(*2 * [st.integers(-4, 4) | st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3)]),
    min_size=3,
)


@given(classes)
def test_metrics_of_classes(pairs: list[tuple[int, int]]) -> None:
    predicted, label = np.array(pairs).T
    assert metrics.accuracy(predicted, label) == pytest.approx(
        100 * reference.accuracy_score(label, predicted)
    )
    assert metrics.matthews(predicted, label) == pytest.approx(
        100 * reference.matthews_corrcoef(label, predicted), abs=1e-9
    )
    one = reference.f1_score(label == 1, predicted == 1, zero_division=0)
    assert metrics.f1(predicted, label) == pytest.approx(100 * one)
    every = reference.f1_score(label, predicted, average="macro", zero_division=0)
    assert metrics.macro_f1(predicted, label, 5) == pytest.approx(100 * every)


@given(numbers)
def test_correlations(pairs: list[tuple[float, float]]) -> None:
    one, other = np.array(pairs, np.float64).T
    for found, expected in (
        (metrics.pearson(one, other), stats.pearsonr),
        (metrics.spearman(one, other), stats.spearmanr),
    ):
        if np.ptp(one) == 0 or np.ptp(other) == 0:
            assert found == 0
        else:
            assert found == pytest.approx(100 * expected(one, other).statistic, abs=1e-6)


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("head", [None, "base", "masked-lm"])
def test_of_language_models_less_is_better_of_all_else_more(
    kind: TaskKind, head: str | None
) -> None:
    split = Split(kind=kind, name="own", split="dev", rows=())
    lower = kind is TaskKind.LANGUAGE_MODELLING
    try:
        task = task_for(split, head=head, num_labels=2)
    except InputError:  # a head that is of other data
        return
    for name in task.metric_names:
        assert task_for(split, head=head, num_labels=2, metric=name).lower_is_better is lower


def test_a_constant_correlates_with_nothing() -> None:
    constant, other = np.full(7, 0.1), np.arange(7) / 7
    assert metrics.pearson(constant, other) == metrics.spearman(constant, other) == 0


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        sample = draw.normal(3, 1, size=80)
        low, high = metrics.bootstrap(lambda some: float(some.mean()), sample, seed=trial)
        assert low < sample.mean() < high
        hits += low <= 3 <= high
    assert hits >= 50  # 95 % of 60 is 57


def test_bootstrap_is_a_function_of_the_seed() -> None:
    sample = np.arange(30.0)
    found = [metrics.bootstrap(lambda some: float(some.mean()), sample, seed=s) for s in (5, 5, 6)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("predicted", "answers", "em", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 100, 100),
        ("eiffel  tower", ["Tower", "the Eiffel-Tower"], 0, 200 / 3),
        ("an apple a day", ["Apple Day"], 100, 100),
        ("in 1889", ["1889", "March 1889"], 0, 200 / 3),
        ("cat cat", ["cat"], 0, 200 / 3),
        ("theatre", ["the atre"], 0, 0),
        ("", ["anything"], 0, 0),
        ("the", ["a"], 100, 0),
    ],
)
def test_answers(predicted: str, answers: list[str], em: float, f1: float) -> None:
    assert exact_match(predicted, answers) == em
    assert answer_f1(predicted, answers) == pytest.approx(f1)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3))
def test_an_answer_is_as_good_as_its_best_truth(predicted: str, answers: list[str]) -> None:
    score = answer_f1(predicted, answers)
    assert score == max(answer_f1(predicted, [one]) for one in answers)
    assert 0 <= score <= 100
    assert normalise(normalise(predicted)) == normalise(predicted)
    if normalise(predicted):
        assert answer_f1(predicted, [*answers, predicted]) == pytest.approx(100)


def test_spans_of_tags() -> None:
    tags = ["B-P", "I-P", "O", "I-L", "B-L", "B-L", "I-P", "I-P"]
    assert spans(tags) == {
        ("P", 0, 2), ("L", 3, 4), ("L", 4, 5), ("L", 5, 6), ("P", 6, 8),
    }  # fmt: skip
    assert spans(["O", "O"]) == set()


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["P", "L", None])), max_size=8))
def test_spans_are_found_again(pieces: list[tuple[int, str | None]]) -> None:
    tags: list[str] = []
    expected = set()
    for length, kind in pieces:
        if kind is None:
            tags += ["O"] * length
        else:
            expected.add((kind, len(tags), len(tags) + length))
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    assert spans(tags) == expected


def test_which_names_mark_spans() -> None:
    assert are_span_tags(["O", "B-PER", "I-PER"])
    for names in ((), ("O",), ("B-PER", "I-PER"), ("NOUN", "VERB"), ("O", "B-"), ("O", "X-PER")):
        assert not are_span_tags(names)


def test_matthews_of_a_perfect_and_of_an_opposite_model() -> None:
    label = np.array([0, 1, 1, 0, 1])
    assert metrics.matthews(label, label) == pytest.approx(100)
    assert metrics.matthews(1 - label, label) == pytest.approx(-100)
    assert math.isclose(metrics.matthews(np.zeros(5), label), 0)


def test_the_same_rows_tell_finer_differences() -> None:
    """Two models that err on nearly the same rows: alone their intervals overlap by far."""
    draw = np.random.default_rng(0)
    one = (draw.random((400, 1)) < 0.7).astype(np.float64)
    other = one.copy()
    other[np.flatnonzero(one)[:12]] = 0
    alone = [metrics.bootstrap(lambda some: 100 * some.mean(), scores) for scores in (one, other)]
    assert alone[1][1] > alone[0][0]
    low, high = metrics.paired_bootstrap(lambda some: 100 * some.mean(), one, other)
    assert 0 < low < 3 < high < 6
    assert metrics.paired_bootstrap(lambda some: 100 * some.mean(), one, one) == (0, 0)
