from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canao.errors import DeviceError, InputError
from canao.runtime_harness.protocol import PROTOCOL
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.records import Record, Setting
from canao.search.space.architecture import Architecture
from canao.search.study import calibration
from canao.search.study.calibration import Calibration, calibrate, fastest
from canao.search.study.pool import DevicePool
from canao.search.study.problem import Problem
from canao.search.study.specification import Specification
from tests.search.controllers.synthetic import latency_of, small_space

SPACE = small_space(layers=(1, 2), seq_lens=(16,))
HERE = Setting(
    device="local",
    fingerprint="a" * 16,
    emulated=False,
    threads=1,
    target="host",
    cpu_features=(),
    protocol=PROTOCOL,
)
BASE = 5_000_000
REFERENCE = 5.0


def measure(bundle: Path, device: str, architecture: Architecture) -> tuple[Record, int | None]:
    milliseconds = latency_of(architecture)
    record = Record(
        setting=HERE,
        architecture=architecture,
        relative=milliseconds / REFERENCE,
        relative_interval=(milliseconds / 5.1, milliseconds / 4.9),
        median_ms=milliseconds,
    )
    return record, BASE + architecture.costs().bytes


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled; nothing really is."""
    found: list[str] = []

    def make(architecture: Architecture, folder: Path, target: str) -> tuple[Path, Architecture]:
        found.append(architecture.digest)
        bundle = folder / f"{architecture.digest}.canao"
        bundle.touch()
        return bundle, architecture

    monkeypatch.setattr(calibration, "_compiled", make)
    return found


def run(folder: Path, source: LatencyPredictor | None, measure: Any = measure) -> Calibration:
    pool = DevicePool[Any](["local"], available=lambda _: False, pause=0)
    return calibrate(
        SPACE, folder, measure, pool, target="host", seed=3, predictor=source, tell=lambda _: None
    )


def without_shipped(monkeypatch: pytest.MonkeyPatch, records: list[Record]) -> None:
    def shipped() -> list[Record]:
        if not records:
            raise InputError("No measurements ship.")
        return records

    monkeypatch.setattr(calibration, "shipped", shipped)


def test_a_device_that_nobody_knows_is_measured_until_it_can_be_predicted(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    found = run(tmp_path, None)
    assert len(found.records) == 24
    assert found.reference_ms == pytest.approx(REFERENCE)
    assert found.memory_base == BASE
    assert found.memory(found.records[0].architecture) > BASE
    assert found.predictor.setting == HERE
    problem = Problem(
        predictor=found.predictor,
        reference_ms=found.reference_ms,
        memory=found.memory,
        estimator=None,  # type: ignore[arg-type]
        specification=Specification(),
    )
    quick, small = fastest(SPACE, problem, seed=0)
    # Hardly anything can be quicker or smaller than what is hoped for.
    assert quick <= min(record.median_ms for record in found.records)
    assert BASE < small <= min(found.memory(record.architecture) for record in found.records)
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again.records == found.records
    looked = [record.architecture for record in found.records[:3]]
    pairs = zip(again.predictor.predict(looked), found.predictor.predict(looked), strict=True)
    assert all(one.relative == pytest.approx(other.relative) for one, other in pairs)

    # Of another device a dozen measurements do, and they are there already.
    other = replace(found.predictor, setting=replace(HERE, fingerprint="b" * 16))
    compiled.clear()
    adapted = run(tmp_path, other)
    assert (len(adapted.records), compiled) == (12, [])
    assert adapted.predictor.setting == HERE
    assert adapted.predictor.adapted_from == other.setting
    # Of this very device only what tells memory and the reference.
    assert len(run(tmp_path, found.predictor).records) == 3
    elsewhere = [replace(r, setting=replace(HERE, threads=2)) for r in found.records]
    without_shipped(monkeypatch, [*elsewhere, *found.records])
    fitted: list[Setting] = []

    def fit(records: list[Record], **_: Any) -> LatencyPredictor:
        fitted.extend({record.setting for record in records})
        return found.predictor

    monkeypatch.setattr(LatencyPredictor, "fit", fit)
    assert len(run(tmp_path, None).records) == 3
    assert fitted == [HERE]


def test_a_predictor_that_measurements_contradict_is_adapted(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    source = run(tmp_path, None).predictor

    def faster(bundle: Path, device: str, architecture: Architecture) -> Any:
        record, peak = measure(bundle, device, architecture)
        low, high = record.relative_interval or (0.0, 0.0)
        return replace(
            record,
            relative=0.6 * record.relative,
            relative_interval=(0.6 * low, 0.6 * high),
            median_ms=0.6 * record.median_ms,
        ), peak

    found = run(tmp_path / "later", source, faster)
    assert len(found.records) == 12
    assert found.predictor.setting == source.setting
    looked = [record.architecture for record in found.records]
    pairs = zip(found.predictor.predict(looked), source.predict(looked), strict=True)
    ratios = [one.relative / other.relative for one, other in pairs]
    assert 0.55 < sorted(ratios)[len(ratios) // 2] < 0.65


def test_a_device_that_is_lost_while_it_is_measured(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    calls: list[int] = []
    made = object()
    monkeypatch.setattr(LatencyPredictor, "fit", lambda records, **_: made)

    def lost(bundle: Path, device: str, architecture: Architecture) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise DeviceError("local was lost.")
        return measure(bundle, device, architecture)

    with pytest.raises(DeviceError, match="Every device was lost"):
        run(tmp_path, None, lost)
    kept = list(tmp_path.glob("*.json"))
    assert len(kept) == 2
    kept[0].write_text("{", encoding="utf-8")  # what is damaged is measured again
    compiled.clear()
    assert run(tmp_path, None).predictor is made
    assert len(compiled) == 23


def test_damaged_calibrations() -> None:
    for value in ({}, {"version": 1}, {"version": 1, "predictor": {}}, {"version": 2}):
        with pytest.raises(InputError):
            Calibration.from_json(value)
