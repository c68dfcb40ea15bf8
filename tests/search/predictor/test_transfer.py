"""From one device to another with a handful of measurements."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache

import numpy as np
import pytest

from canao.errors import InputError
from canao.search.predictor.assessment import assess_adapted
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.quality import quality
from canao.search.predictor.records import Record

from .devices import SETTING, Formula, drawn, measured

OTHER = dataclasses.replace(SETTING, device="other", fingerprint="ee")
SLOWER = Formula(f32=20e3, bf16=250e3, int8=450e3, near=9e3, far=4e3, launch=12.0)


@lru_cache(maxsize=1)
def source() -> LatencyPredictor:
    return LatencyPredictor.fit(measured(drawn(220)[:100]))


@lru_cache(maxsize=1)
def other() -> tuple[Record, ...]:
    return tuple(measured(drawn(220), SLOWER, setting=OTHER, seed=5))


def test_a_few_measurements_make_a_predictor_of_another_device() -> None:
    fractions, coverage = [], []
    for seed in range(3):
        found = assess_adapted(source(), other(), samples=20, seed=seed)
        fractions.append(found.quality.within_10)
        coverage.append(found.quality.coverage_90)
        assert found.quality.spearman > 0.97
        assert found.quality.n_train == 20
    assert np.mean(fractions) > 0.75
    assert np.mean(coverage) > 0.8
    # More than one factor for all, and more than what so few say by themselves.
    few, rest = other()[:20], other()[20:]
    architectures = [one.architecture for one in rest]
    adapted = quality(source().adapt(few).predict(architectures), rest, n_train=20)
    ours = np.array([one.relative for one in source().predict(architectures)])
    known = np.array([one.relative for one in source().predict([r.architecture for r in few])])
    factor = float(np.median([one.typical for one in few] / known))
    scaled = quality(ours * factor, rest, n_train=20)
    alone = quality(LatencyPredictor.fit(few).predict(architectures), rest, n_train=20)
    assert adapted.mape < 0.7 * scaled.mape
    assert adapted.mape < alone.mape


def test_two_threads_of_the_same_machine() -> None:
    two = measured(drawn(220), Formula(threads=2, launch=4.0), seed=9)
    found = assess_adapted(source(), two, samples=20)
    assert found.predictor.setting.threads == 2
    assert found.predictor.adapted_from == source().setting
    assert found.quality.within_10 > 0.75


def test_it_survives_json_and_can_be_adapted_again() -> None:
    adapted = source().adapt(other()[:12])
    again = LatencyPredictor.from_json(json.loads(json.dumps(adapted.to_json())))
    architectures = [one.architecture for one in other()[:9]]
    for one, copy in zip(
        adapted.predict(architectures), again.predict(architectures), strict=True
    ):
        assert copy.relative == pytest.approx(one.relative)
        assert copy.high == pytest.approx(one.high, rel=1e-4)
    third = measured(drawn(30), setting=dataclasses.replace(OTHER, fingerprint="dd"), seed=2)
    back = again.adapt(third[:15])
    assert back.adapted_from == again.setting
    found = quality(back.predict([one.architecture for one in third[15:]]), third[15:], n_train=15)
    assert found.mape < 0.1


def test_nothing_carries_over_between_emulated_and_real_or_protocols() -> None:
    for change in ({"emulated": True}, {"protocol": 2}):
        setting = dataclasses.replace(OTHER, **change)
        records = measured(drawn(20), setting=setting)
        with pytest.raises(InputError, match="nothing carries over"):
            source().adapt(records, emulated=setting.emulated, protocol=setting.protocol)


def test_too_few_or_the_same_setting_are_refused() -> None:
    with pytest.raises(InputError, match="the fewest"):
        source().adapt(other()[:4])
    with pytest.raises(InputError, match="fit it anew"):
        source().adapt(measured(drawn(20)))
    with pytest.raises(InputError, match="leave none"):
        assess_adapted(source(), other()[:20], samples=20)
