"""What was measured teaches a study's predictor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.timing_store import TimingStore
from canao.search.controllers import Outcome
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.recordings import of_settings
from canao.search.predictor.records import Record
from canao.search.study.calibration import Calibration
from canao.search.study.folder import StudyFolder
from canao.search.study.learning import keep_predictor, relearned, revised
from canao.search.study.specification import Specification
from canao.search.study.trial import Finding, Trial
from tests.search.predictor.devices import SETTING, Formula, drawn, measured
from tests.search.predictor.test_records import stored
from tests.search.study.benches import measured as measurement
from tests.search.study.problems import study

SLOW = Formula(f32=30e3, bf16=100e3, int8=170e3, near=14e3, far=4e3, launch=7.0)
"""Three times as slow as the device that the predictor knows."""


def known(records: Sequence[Record], predictor: LatencyPredictor) -> Calibration:
    return Calibration(
        predictor=predictor,
        reference_ms=2.0,
        memory_base=1000,
        memory_margin=0,
        records=tuple(records),
    )


@pytest.fixture(scope="module")
def elsewhere() -> LatencyPredictor:
    return LatencyPredictor.fit(measured(drawn(39)))


def keep(store: TimingStore, records: Sequence[Record]) -> None:
    for one in records:
        ms = one.median_ms
        row = stored(
            **{"device": one.setting.device, "fingerprint": one.setting.fingerprint},
            **{"target": one.setting.target, "seq_len": one.architecture.seq_len},
            **{"median_ms": ms, "relative": one.relative, "emulated": one.setting.emulated},
        )
        assert isinstance(row, Measurement)
        store.add(row, architecture=one.architecture.to_json())


def error(predictor: LatencyPredictor, records: Sequence[Record]) -> float:
    found = predictor.predict([one.architecture for one in records])
    pairs = zip(found, records, strict=True)
    return sum(abs(one.relative / r.relative - 1) for one, r in pairs) / len(records)


def test_what_confirms_a_predictor_leaves_it_and_what_contradicts_adapts_it(
    elsewhere: LatencyPredictor,
) -> None:
    more = drawn(60)[40:]
    calibration = known(measured(more[:3]), elsewhere)
    assert relearned(calibration, measured(more[:3])) is None
    assert relearned(calibration, measured(more[:9])) is None
    slow = known(measured(more[:3], SLOW), elsewhere)
    adapted = relearned(slow, measured(more[:9], SLOW))
    assert adapted is not None
    assert adapted.setting == elsewhere.setting
    rest = measured(more[9:], SLOW)
    assert error(adapted, rest) < 0.15 < 0.4 < error(elsewhere, rest)
    # Of four architectures nothing can be adapted.
    assert relearned(slow, measured(more[:4], SLOW)) is None


def test_one_that_learned_from_the_calibration_learns_from_the_finals(
    elsewhere: LatencyPredictor,
) -> None:
    every = measured(drawn(60))
    calibration = known(every[:24], LatencyPredictor.fit(every[:24], seed=4))
    again = relearned(calibration, every[20:32])
    assert again is not None
    assert len(again.trained_on) == 32
    assert again.seed == 4
    adapted = elsewhere.adapt(measured(drawn(60)[:12], SLOW), changed=True)
    slow = known(measured(drawn(60)[:12], SLOW), adapted)
    found = relearned(slow, measured(drawn(60)[:20], SLOW))
    assert found is not None
    assert len(found.trained_on) == 20
    assert found.adapted_from == elsewhere.setting


def begun(path: Path) -> StudyFolder:
    return study(path, 9, specification=Specification(latency_ms=3.0), controller="random")


def waiting(records: Sequence[Record]) -> list[Trial]:
    return [
        Trial(
            number=number,
            values={},
            architecture=one.architecture,
            finding=Finding(
                latency_ms=1.0, latency_interval=(0.9, 1.1), memory_bytes=5, accuracy=70.0
            ),
            outcome=Outcome(accuracy=70.0, latency=1.0, memory=5, violations=(-0.6,)),
            seconds=1.0,
            overhead=0.1,
        )
        for number, one in enumerate(records)
    ]


def test_those_who_wait_are_predicted_anew(elsewhere: LatencyPredictor, tmp_path: Path) -> None:
    folder = begun(tmp_path / "s")
    slow = measured(drawn(60)[40:], SLOW)
    calibration = known(slow[:3], elsewhere)
    assert revised(folder, calibration, waiting(slow[12:]), []) is None  # there is no store yet
    store = TimingStore(folder.timings)
    keep(store, slow[:12])
    seen = [measurement(one.median_ms) for one in slow[3:12]]
    found = revised(folder, calibration, waiting(slow[12:]), seen)
    assert found is not None
    for trial, record in zip(found, slow[12:], strict=True):
        assert trial.finding is not None
        assert trial.finding.accuracy == 70.0
        assert trial.finding.latency_ms == pytest.approx(record.median_ms, rel=0.4)
        assert trial.outcome.latency == trial.finding.latency_ms
        assert trial.outcome.violations[0] == pytest.approx(trial.finding.latency_ms / 3 - 1)
        assert trial.finding.memory_bytes == calibration.memory(record.architecture)
    # What a killed process measured further on does not count yet; nor does another device.
    keep(store, slow[12:15])
    other = dataclasses.replace(SETTING, fingerprint="00")
    keep(store, [dataclasses.replace(one, setting=other) for one in slow[3:12]])
    emulated = dataclasses.replace(SETTING, emulated=True)
    keep(store, [dataclasses.replace(one, setting=emulated) for one in slow[3:12]])
    assert revised(folder, calibration, waiting(slow[12:]), seen) == found
    assert len(of_settings(store.path, [SETTING])) == 15
    assert len(of_settings(store.path, [emulated])) == 9


def test_what_was_taught_is_kept(elsewhere: LatencyPredictor, tmp_path: Path) -> None:
    folder = begun(tmp_path / "s")
    slow = measured(drawn(60)[40:], SLOW)
    calibration = known(slow[:3], elsewhere)
    place = folder.path / "predictor.json"
    keep_predictor(folder, calibration)
    assert json.loads(place.read_text())["trained_on"] == list(elsewhere.trained_on)
    keep(TimingStore(folder.timings), slow[:12])
    keep_predictor(folder, calibration)
    assert error(LatencyPredictor.load(place), slow[12:]) < 0.15


def test_a_store_teaches_predict(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from canao.cli import app

    store, out = TimingStore(tmp_path / "timings.db"), tmp_path / "predictor.json"
    keep(store, measured(drawn(60)))
    store.add(stored(fingerprint=SETTING.fingerprint), architecture={"name": "another"})
    arguments: list[Any] = ["predict", "train", "--store", store.path, "-o", out, "--json"]
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["n_train"] + found["n_test"] == 60
    assert found["spearman"] > 0.9
    assert LatencyPredictor.load(out).setting == SETTING
