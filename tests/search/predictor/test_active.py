"""What to measure next: new, different, and better than drawing."""

from __future__ import annotations

import numpy as np
import pytest

from canao.errors import InputError
from canao.search.predictor.active import choose_next
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.quality import quality
from canao.search.space.architecture import Architecture

from .devices import Formula, drawn, measured

POOL = measured(drawn(220))[:150]
TEST = measured(drawn(220))[150:]


def mape(chosen: list[Architecture]) -> float:
    by = {one.architecture: one for one in POOL}
    predictor = LatencyPredictor.fit([by[one] for one in chosen])
    return quality(
        predictor.predict([one.architecture for one in TEST]), TEST, n_train=len(chosen)
    ).mape


def test_chosen_measurements_teach_more_than_drawn_ones() -> None:
    actively, randomly = [], []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(POOL))
        every = [POOL[index].architecture for index in order]
        randomly.append(mape(every[:36]))
        known = every[:20]
        for _ in range(2):
            by = {one.architecture: one for one in POOL}
            predictor = LatencyPredictor.fit([by[one] for one in known])
            known = [*known, *choose_next(predictor, every, 8, measured=known)]
        assert len(set(known)) == 36
        actively.append(mape(known))
    assert np.mean(actively) < 0.95 * np.mean(randomly)


def test_choices_are_new_and_the_same_for_the_same_call() -> None:
    known = [one.architecture for one in POOL[:25]]
    predictor = LatencyPredictor.fit(POOL[:25])
    pool = [one.architecture for one in POOL]
    chosen = choose_next(predictor, [*pool, *pool], 10, measured=known)
    assert len(set(chosen)) == 10
    assert not set(chosen) & set(known)
    assert chosen == choose_next(predictor, pool, 10, measured=known)
    for count in (0, 126):
        with pytest.raises(InputError, match="125 new"):
            choose_next(predictor, pool, count, measured=known)


def test_what_to_adapt_by_is_chosen_for_the_other_setting() -> None:
    source = LatencyPredictor.fit(POOL[:60])
    two = measured(drawn(220), Formula(threads=2, launch=6.0, near=20e3), seed=3)
    pool, test = two[:150], two[150:]
    every = [one.architecture for one in pool]
    by = {one.architecture: one for one in pool}

    def error(few: list[Architecture]) -> float:
        adapted = source.adapt([by[one] for one in few])
        predicted = adapted.predict([one.architecture for one in test])
        return quality(predicted, test, n_train=len(few)).mape

    to = two[0].setting
    chosen = choose_next(source, every, 20, to=to)
    assert len(set(chosen)) == 20
    assert chosen != choose_next(source, every, 20)
    known = choose_next(source, every, 4, to=to)
    assert not set(known) & set(choose_next(source, every, 4, measured=known, to=to))
    orders = [np.random.default_rng(seed).permutation(len(every)) for seed in range(4)]
    randomly = [error([every[index] for index in order[:20]]) for order in orders]
    assert error(chosen) < 0.95 * np.mean(randomly)
