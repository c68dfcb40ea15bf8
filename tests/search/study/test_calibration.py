from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from canao.errors import DeviceError, InputError
from canao.runtime_harness.protocol import PROTOCOL
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.records import Record, Setting
from canao.search.space.architecture import Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.study import calibration, samples
from canao.search.study.calibration import Calibration, calibrate
from canao.search.study.pool import DevicePool
from canao.search.study.possible import fastest
from canao.search.study.problem import Problem
from canao.search.study.specification import Specification
from canao.search.study.spread import drawn_from
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

    monkeypatch.setattr(samples, "_compiled", make)
    return found


def run(
    folder: Path, source: LatencyPredictor | None, measure: Any = measure, **changes: Any
) -> Calibration:
    given = {"space": SPACE, "target": "host", "here": {"local": HERE.fingerprint}, **changes}
    pool = DevicePool[Any](["local"], available=lambda _: False, pause=0)
    return calibrate(
        given.pop("space"),
        folder,
        measure,
        pool,
        seed=3,
        predictor=source,
        tell=lambda _: None,
        **given,
    )


@lru_cache(maxsize=1)
def learned() -> LatencyPredictor:
    """A predictor of `HERE`."""
    some = drawn_from(SPACE, "host", 3)[::8]
    return LatencyPredictor.fit([measure(Path(), "local", one)[0] for one in some])


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

    # Of another device a dozen measurements do: the first three, and those that tell most.
    other = replace(found.predictor, setting=replace(HERE, fingerprint="b" * 16))
    adapted = run(tmp_path, other)
    assert adapted.records[:3] == found.records[:3]
    assert len({record.architecture for record in adapted.records}) == 12
    assert adapted.predictor.setting == HERE
    compiled.clear()
    assert run(tmp_path, other).records == adapted.records
    assert compiled == []
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
    source = learned()

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


def test_of_unlike_devices_the_most_alike_teaches(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"b": ("avx2",), "c": ("avx2", "avx512f"), "d": ("avx2", "avx512f", "amx-int8")}
    records = [measure(Path(), "local", one)[0] for one in drawn_from(SPACE, "host", 3)[::8]]
    shipped = [
        replace(record, setting=replace(HERE, fingerprint=name, cpu_features=of))
        for name, of in features.items()
        for record in records
    ]
    without_shipped(monkeypatch, shipped)

    def here(bundle: Path, device: str, architecture: Architecture) -> Any:
        record, peak = measure(bundle, device, architecture)
        setting = replace(record.setting, cpu_features=("avx2", "avx512f", "avx512vnni"))
        return replace(record, setting=setting), peak

    found = run(tmp_path, None, here)
    assert found.predictor.adapted_from is not None
    assert found.predictor.adapted_from.fingerprint == "c"


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


def of(setting: Setting, spread: float = 0.02) -> Any:
    """Measures in another setting; ``spread``: half of an interval's relative width."""

    def measured(bundle: Path, device: str, architecture: Architecture) -> Any:
        record, peak = measure(bundle, device, architecture)
        ends = (record.relative * (1 - spread), record.relative * (1 + spread))
        return replace(record, setting=setting, relative_interval=ends), peak

    return measured


def test_an_emulated_device_is_calibrated_like_any_other(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real measurements, which ship, say nothing of it; those of another protocol neither."""
    emulated = replace(HERE, device="local", emulated=True, target="arm64", protocol=PROTOCOL + 1)
    without_shipped(monkeypatch, [])
    real = run(tmp_path / "real", learned())
    without_shipped(monkeypatch, list(real.records) * 8)
    found = run(tmp_path / "new", None, of(emulated), target="arm64")
    assert found.predictor.setting == emulated
    assert len(found.records) == 24
    # Adapted from one of another such device, and taken from what ships of it.
    other = replace(found.predictor, setting=replace(emulated, fingerprint="b" * 16))
    assert run(tmp_path / "new", other, of(emulated), target="arm64").predictor.adapted_from
    without_shipped(monkeypatch, list(found.records))
    again = run(tmp_path / "again", None, of(emulated), target="arm64")
    assert (again.predictor.setting, len(again.records)) == (emulated, 3)


def test_where_measurements_are_disturbed_there_are_more(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    count = [0]

    def sometimes(bundle: Path, device: str, architecture: Architecture) -> Any:
        count[0] += 1
        return of(HERE, spread=0.3 if count[0] % 4 == 0 else 0.02)(bundle, device, architecture)

    found = run(tmp_path, None, sometimes)
    assert len(found.predictor.trained_on) == 20
    assert 24 < len(found.records) < 30


def test_a_space_too_small_to_learn_from_is_refused_soon(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    form = MatrixChoices()
    small = small_space(layers=(1,), hidden=(64,), ffn=(64, 128), up=form, down=form)
    with pytest.raises(InputError, match="has 8 architectures, and 20 must be measured"):
        run(tmp_path, None, space=small)
    assert len(compiled) == 3


def test_what_another_device_or_compiler_left_is_measured_again(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    source = learned()
    assert len(run(tmp_path, source).records) == 3
    compiled.clear()
    assert len(run(tmp_path, source).records) == 3
    assert compiled == []
    elsewhere = replace(HERE, fingerprint="b" * 16)
    moved = run(tmp_path, source, of(elsewhere), here={"local": elsewhere.fingerprint})
    assert len(compiled) == 12
    assert {record.setting for record in moved.records} == {elsewhere}
    compiled.clear()
    monkeypatch.setattr(samples, "compiler_digest", lambda target: "another")
    run(tmp_path, moved.predictor, of(elsewhere), here={"local": elsewhere.fingerprint})
    assert len(compiled) == 3


def test_devices_of_one_kind_are_one_to_learn_from(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shipped(monkeypatch, [])
    count = [0]

    def in_turns(bundle: Path, device: str, architecture: Architecture) -> Any:
        count[0] += 1
        name = "ab"[count[0] % 2]
        return of(replace(HERE, device=name, fingerprint=name * 16))(bundle, device, architecture)

    found = run(tmp_path, None, in_turns)
    assert len(found.predictor.trained_on) == 24
    assert found.devices == {"a": "a" * 16, "b": "b" * 16}
    found.check({})
    found.check({"a": "a" * 16, "c": "c" * 16})
    with pytest.raises(InputError, match=r"on another b \(b+\) than the one here \(c+\)"):
        found.check({"a": "a" * 16, "b": "c" * 16})


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([5, 9, 6], (6, 6)),  # twice the distance of the 9
        ([-40, -42, -44], (0, 88)),  # tables of which most is never read
        ([5, 7, None], (6, 6)),  # too few to tell: the weights alone are sure
        ([None, None, None], (0, 0)),
    ],
)
def test_memory_may_be_off_by_what_was_seen(
    tmp_path: Path,
    compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
    peaks: list[int | None],
    expected: tuple[int, int],
) -> None:
    without_shipped(monkeypatch, [])
    source = learned()
    left = list(peaks)

    def peak(bundle: Path, device: str, architecture: Architecture) -> Any:
        one = left.pop()
        size = architecture.costs().bytes
        return measure(bundle, device, architecture)[0], None if one is None else size + one

    found = run(tmp_path / "peaks", source, peak)
    assert (found.memory_base, found.memory_margin) == expected


def test_damaged_calibrations() -> None:
    for value in ({}, {"version": 1}, {"version": 2, "predictor": {}}, {"version": 2}):
        with pytest.raises(InputError):
            Calibration.from_json(value)
