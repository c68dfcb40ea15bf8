"""The predictor on a device that is a formula: right, covered, told where it does not know."""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.predictor import boosting, hybrid
from canao.search.predictor.assessment import assess, assess_fitted, described
from canao.search.predictor.predictor import LEAST_RECORDS, LatencyPredictor
from canao.search.predictor.quality import quality, repeatability, split
from canao.search.predictor.records import Record
from canao.search.space.architecture import KINDS

from .devices import Formula, drawn, measured

# Enough of each kind of dispatch: dense, sparse and gathered ones, in three precisions.
TAUGHT = 140


@lru_cache(maxsize=1)
def everything() -> tuple[Record, ...]:
    return tuple(measured(drawn(220)))


@lru_cache(maxsize=1)
def trained() -> LatencyPredictor:
    """One with trees."""
    return LatencyPredictor.fit(everything()[:TAUGHT])


def same(one: LatencyPredictor, other: LatencyPredictor) -> bool:
    architectures = [record.architecture for record in everything()[TAUGHT:]]
    pairs = zip(one.predict(architectures), other.predict(architectures), strict=True)
    return all(
        a.relative == b.relative and a.high == pytest.approx(b.high, rel=1e-4) for a, b in pairs
    )


def test_it_predicts_what_it_has_not_seen() -> None:
    test = everything()[TAUGHT:]
    found = quality(trained().predict([one.architecture for one in test]), test, n_train=TAUGHT)
    assert found.spearman > 0.99
    assert found.kendall > 0.95
    assert found.mape < 0.03
    assert found.within_10 > 0.97
    assert (found.n_train, found.n_test) == (TAUGHT, len(test))


def test_intervals_hold_nine_in_ten_over_twenty_splits() -> None:
    covered = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(everything()))
        train = [everything()[index] for index in order[:36]]
        test = [everything()[index] for index in order[36:]]
        predictor = LatencyPredictor.fit(train, seed=seed)
        predictions = predictor.predict([one.architecture for one in test])
        covered.append(quality(predictions, test, n_train=36).coverage_90)
    assert 0.85 <= np.mean(covered) <= 0.95


def test_trees_learn_what_the_sum_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    # A device where layers of many heads are slower than the sum of their work.
    odd = [slower(one, 1.4) if heavy(one) else one for one in everything()]
    train, test = odd[:150], odd[150:]
    with_trees = LatencyPredictor.fit(train)
    assert with_trees.model.share > 0.3
    monkeypatch.setattr(hybrid, "available", lambda: False)
    without = LatencyPredictor.fit(train)
    assert without.model.forests == ()
    architectures = [one.architecture for one in test]
    better, worse = (
        quality(one.predict(architectures), test, n_train=150) for one in (with_trees, without)
    )
    assert better.mape < 0.9 * worse.mape


def slower(record: Record, times: float) -> Record:
    interval = record.relative_interval
    assert interval is not None
    assert record.median_ms is not None
    return dataclasses.replace(
        record,
        median_ms=record.median_ms * times,
        relative=record.relative * times,
        relative_interval=(interval[0] * times, interval[1] * times),
    )


def heavy(record: Record) -> bool:
    layers = record.architecture.layers
    return sum(layer.heads for layer in layers) / len(layers) > 3.5


def test_the_same_records_and_seed_give_the_same_predictor() -> None:
    again = LatencyPredictor.fit(everything()[:TAUGHT])
    assert again.to_json() == trained().to_json()


def test_it_survives_a_file(tmp_path: Path) -> None:
    path = trained().save(tmp_path / "predictor.json")
    again = LatencyPredictor.load(path)
    assert same(trained(), again)
    assert again.setting == trained().setting
    assert again.trained_on == trained().trained_on
    assert json.loads(path.read_text())["version"] == 3
    assert "Tree=0" in path.read_text()
    assert [place.name for place in tmp_path.iterdir()] == ["predictor.json"]
    with pytest.raises(InputError, match="must be a file"):
        trained().save(tmp_path / "nowhere" / "predictor.json")


@pytest.mark.parametrize("what", ["columns", "terms"])
def test_what_its_numbers_stand_for_is_told_by_name(what: str, tmp_path: Path) -> None:
    path = trained().save(tmp_path / "predictor.json")
    found = json.loads(path.read_text())
    names = found["model"][what]
    found["model"][what] = [names[1], names[0], *names[2:]]  # as many, of another order
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match="other features of programs"):
        LatencyPredictor.load(path)


def test_far_from_all_that_was_measured_it_says_so() -> None:
    near = everything()[100].architecture
    far = dataclasses.replace(near, layers=near.layers[:1] * 24)
    inside, outside = trained().predict([near, far])
    assert not inside.outside
    assert inside.reason == ""
    assert outside.outside
    assert "layers is 24, and was measured from 1 to 4" in outside.reason
    assert outside.high / outside.low > 1.5 * inside.high / inside.low
    assert outside.relative > inside.relative


def test_work_that_was_never_measured_is_outside() -> None:
    dense = [one for one in everything() if "int8" not in precisions(one)]
    assert len(dense) >= LEAST_RECORDS
    predictor = LatencyPredictor.fit(dense)
    int8 = next(one for one in everything() if precisions(one) == {"int8"})
    found = predictor.predict([int8.architecture])[0]
    assert found.outside
    assert "never measured" in found.reason
    assert "int8" in found.reason
    assert not predictor.predict([dense[0].architecture])[0].outside


def precisions(record: Record) -> set[str]:
    layers = record.architecture.layers
    return {getattr(layer, kind).precision for layer in layers for kind in KINDS}


def test_milliseconds_are_the_device_s() -> None:
    record = everything()[120]
    found = trained().predict([record.architecture])[0]
    assert found.ms == pytest.approx(record.median_ms, rel=0.15)
    assert found.low_ms is not None
    assert found.high_ms is not None
    assert found.low_ms < found.ms < found.high_ms
    assert trained().predict([]) == []


def test_too_few_or_mixed_records_are_refused() -> None:
    with pytest.raises(InputError, match=f"needs {LEAST_RECORDS}"):
        LatencyPredictor.fit(everything()[: LEAST_RECORDS - 1])
    # The same architecture again is no other one.
    with pytest.raises(InputError, match="1 architectures were measured"):
        LatencyPredictor.fit(everything()[:1] * 50)
    two = measured(drawn(40), Formula(threads=2))
    with pytest.raises(InputError, match="cannot be mixed"):
        LatencyPredictor.fit([*everything()[:40], *two])
    emulated = [
        dataclasses.replace(one, setting=dataclasses.replace(one.setting, emulated=True))
        for one in everything()[:40]
    ]
    with pytest.raises(InputError, match="no real measurements"):
        LatencyPredictor.fit(emulated)
    chosen = LatencyPredictor.fit([*everything()[:30], *emulated])
    assert not chosen.setting.emulated
    assert len(chosen.trained_on) == 30


def test_splits_are_drawn_by_the_seed() -> None:
    train, test = split(everything(), 1)
    assert split(everything(), 1) == (train, test)
    assert split(everything(), 2) != (train, test)
    digests = [one.architecture.digest for one in (*train, *test)]
    assert sorted(digests) == sorted(one.architecture.digest for one in everything())
    assert (len(train), len(test)) == (132, 88)
    many = [*everything(), *measured(drawn(330)[220:])]
    assert [len(part) for part in split(many, 0)] == [150, 180]
    with pytest.raises(InputError, match="35"):
        split(everything()[:34], 0)


def test_what_it_learned_from_does_not_count() -> None:
    found = assess_fitted(trained(), everything())
    assert found.quality.n_test == len(everything()) - TAUGHT
    with pytest.raises(InputError, match="every one"):
        assess_fitted(trained(), everything()[:TAUGHT])
    shown = described(trained(), everything()[:TAUGHT])
    assert (shown.quality, shown.to_json()["mape"]) == (None, None)
    assert "learned from every one" in shown.untried
    with pytest.raises(InputError, match="cannot be compared"):
        assess_fitted(trained(), measured(drawn(6), Formula(threads=2)))


def test_measuring_again_is_the_ceiling() -> None:
    records = [
        dataclasses.replace(one, repeat_relative=(one.relative * factor,))
        for one, factor in zip(everything(), (1.0, 1.04, 1.08, 1.2), strict=False)
    ]
    assert repeatability(records) == {
        "within_5": 0.5,
        "within_10": 0.75,
        "mape": pytest.approx(0.08),
        "n": 4,
    }
    assert repeatability(everything()) is None


def test_beside_the_baselines() -> None:
    with_times = measured(drawn(220)[:60], dispatches=True)
    found = assess(with_times)
    told = found.to_json()
    assert set(told["baselines"]) == {
        "flops", "neural net", "look-up",
    }  # fmt: skip
    for one in found.others.values():
        assert one.coverage_90 is None
        assert one.n_test == found.quality.n_test
        assert one.spearman > 0.5
        assert one.mape > found.quality.mape
    # One that looks up real times of the same dispatches is no straw man.
    assert found.others["look-up"].mape < found.others["flops"].mape


def test_without_lightgbm_it_can_still_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(trained().to_json())
    monkeypatch.setattr(boosting, "fit_forests", None)
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    assert same(LatencyPredictor.from_json(json.loads(text)), trained())


@lru_cache(maxsize=1)
def small() -> dict[str, Any]:
    """The JSON of one without trees, which is short."""
    return LatencyPredictor.fit(everything()[:LEAST_RECORDS]).to_json()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(p for key in value for p in places(value[key], (*path, key)))]
    if isinstance(value, list):
        return [
            path,
            *(p for i in range(min(len(value), 2)) for p in places(value[i], (*path, i))),
        ]
    return [path]


hostile = st.sampled_from(
    [None, True, -1, 0, 10**30, 1e300, float("nan"), "x", "", [], {}, [[]], [None], {"a": 1}]
)


@given(st.data(), hostile)
def test_a_hostile_file_is_refused_or_harmless(data: st.DataObject, other: Any) -> None:
    value = copy.deepcopy(small())
    path = data.draw(st.sampled_from(places(value)[1:]))
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = other
    try:
        predictor = LatencyPredictor.from_json(value)
        found = predictor.predict([everything()[0].architecture])
    except InputError:
        return
    assert np.isfinite(found[0].relative)
    assert found[0].low <= found[0].relative <= found[0].high


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"version": 1}',
        b'{"version": 2}',
        b'{"version": 3}',
        b"1e400",
    ],
)
def test_no_predictor_at_all(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.json cannot be used") as caught:
        LatencyPredictor.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        LatencyPredictor.load(tmp_path / "none.json")
