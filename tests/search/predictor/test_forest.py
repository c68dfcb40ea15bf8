"""Trees read from LightGBM's text say what LightGBM says, and nothing hostile gets through."""

from __future__ import annotations

from functools import lru_cache

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.predictor.boosting import fit_forests, mean_of
from canao.search.predictor.forest import Forest

COLUMNS = 4


@lru_cache(maxsize=1)
def trained() -> Forest:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, COLUMNS))
    targets = np.sin(rows[:, 0]) + 0.3 * rows[:, 1] - (rows[:, 2] > 0)
    return fit_forests(rows, targets, np.ones(80), rising=[1], seeds=[3])[0]


numbers = st.floats(-10, 10) | st.sampled_from([0.0, -0.0, 1e-300, 1e300, -1e300])


@given(st.lists(st.lists(numbers, min_size=COLUMNS, max_size=COLUMNS), min_size=1, max_size=8))
def test_it_says_what_lightgbm_says(rows: list[list[float]]) -> None:
    given_rows = np.array(rows)
    expected = lightgbm.Booster(model_str=trained().text).predict(given_rows)
    assert trained().predict(given_rows) == pytest.approx(expected, abs=1e-12)


@given(st.lists(numbers, min_size=COLUMNS, max_size=COLUMNS), st.floats(0, 20))
def test_a_rising_column_never_lowers(row: list[float], more: float) -> None:
    larger = [*row]
    larger[1] += more
    low, high = trained().predict(np.array([row, larger]))
    assert high >= low


def test_a_tree_of_one_leaf() -> None:
    rows = np.arange(20.0)[:, None]
    forest = fit_forests(rows, np.full(20, 0.25), np.ones(20), rising=[], seeds=[0])[0]
    assert forest.predict(rows) == pytest.approx(np.full(20, 0.25))


def test_the_mean_of_none_is_nothing() -> None:
    middle, spread = mean_of((), np.zeros((3, COLUMNS)))
    assert not middle.any()
    assert not spread.any()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("split_feature=", "split_feature=99 "),
        ("left_child=", "left_child=0 "),
        ("right_child=", "right_child=-1 "),
        ("num_leaves=", "num_leaves=9"),
        ("num_leaves=", "num_leaves=-"),
        ("threshold=", "threshold=nan "),
        ("leaf_value=", "leaf_value=1e999 "),
        ("decision_type=", "decision_type=1 "),
        ("num_cat=0", "num_cat=1"),
        ("is_linear=0", "is_linear=1"),
        ("end of trees", "end of tree"),
        ("\nTree=", "\nBush="),
    ],
)
def test_hostile_trees_are_refused(before: str, after: str) -> None:
    text = trained().text
    assert before in text
    with pytest.raises(InputError):
        Forest.read(text.replace(before, after), COLUMNS)


def test_a_ring_of_nodes_is_no_tree() -> None:
    ring = "\nTree=0\nnum_leaves=4\nsplit_feature=0 0 0\nthreshold=0 0 0\ndecision_type=2 2 2\n"
    ring += "left_child=-1 2 1\nright_child=-2 -3 -4\nleaf_value=0 0 0 0\n\nend of trees"
    with pytest.raises(InputError, match="do not form a tree"):
        Forest.read(ring, COLUMNS)


@given(st.data())
def test_changed_text_never_crashes(data: st.DataObject) -> None:
    text = trained().text
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    other = data.draw(st.text(st.sampled_from("0123456789-. =\nnaife"), max_size=12))
    changed = text[:start] + other + text[start + length :]
    try:
        found = Forest.read(changed, COLUMNS)
    except InputError:
        return
    assert np.isfinite(found.predict(np.zeros((2, COLUMNS)))).all()


@pytest.mark.parametrize("text", [None, 3, "", "tree", "x" * 1000])
def test_no_text_of_trees(text: object) -> None:
    with pytest.raises(InputError):
        Forest.read(text, COLUMNS)
