"""Recorded measurements: they round-trip, are never mixed, and whatever is wrong is told."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.timing_store import TimingStore
from canao.search.predictor.recordings import most_like, of_store, read_recording, select
from canao.search.predictor.records import Record, Setting

from .devices import SETTING, drawn, measured

times = st.floats(1e-3, 1e3)
texts = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=9)
settings_of = st.builds(
    Setting,
    device=texts,
    fingerprint=texts,
    emulated=st.booleans(),
    threads=st.integers(1, 8),
    target=texts,
    cpu_features=st.lists(texts).map(tuple),
    protocol=st.integers(1, 3),
)
records = st.builds(
    Record,
    setting=settings_of,
    architecture=st.sampled_from(drawn(6)),
    relative=times,
    relative_interval=st.none() | st.tuples(times, times).map(lambda two: tuple(sorted(two))),
    median_ms=times,
    repeat_relative=st.lists(times, max_size=3).map(tuple),
    dispatches=st.lists(st.tuples(texts, times), max_size=3).map(tuple),
    calls=st.lists(texts, max_size=3).map(tuple),
    stable=st.booleans(),
    peak_bytes=st.none() | st.integers(1, 2**40),
)


@given(records)
def test_a_record_survives_json(record: Record) -> None:
    again = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert again == record
    assert again.setting.cpu_features == record.setting.cpu_features


def test_the_most_alike_cpu_is_found() -> None:
    def of(device: str, count: int, *features: str) -> list[Record]:
        setting = dataclasses.replace(SETTING, fingerprint=device, cpu_features=features)
        return measured(drawn(count), setting=setting)

    amx = of("amx", 9, "avx2", "avx512f", "amx-int8")
    # A bundle in f32 names few features; those beside it tell what the CPU is.
    wide = [*of("wide", 2, "avx2"), *of("wide", 3, "avx2", "avx512f")]
    narrow = of("narrow", 4, "avx2")
    every = [*amx, *wide, *narrow]
    assert most_like(every, ["avx2", "avx512f"]) == wide
    assert most_like(every, ["avx2", "avx512f", "amx-int8", "amx-tile"]) == amx
    assert most_like(every, ["neon"]) == amx  # none is, so that of which there is most
    assert most_like([], ["avx2"]) == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("relative", 0, "relative must be a number above 0"),
        ("relative", float("nan"), "relative"),
        ("relative", True, "relative"),
        ("relative_interval", [2, 1], "relative_interval"),
        ("relative_interval", [1], "relative_interval"),
        ("median_ms", "3", "median_ms"),
        ("threads", 0, "threads"),
        ("emulated", 0, "emulated"),
        ("protocol", None, "protocol"),
        ("version", 2, "version"),
        ("version", True, "version"),
        ("architecture", None, "architecture"),
        ("architecture", {"layers": 6}, "version of the architecture"),
        ("dispatches", [["a"]], "dispatches[0]"),
        ("repeat_relative", [-1], "repeat_relative[0]"),
        ("peak_bytes", 0, "peak_bytes"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, told: str) -> None:
    line = {**measured(drawn(6)[:1])[0].to_json(), field: value}
    with pytest.raises(InputError) as caught:
        Record.from_json(line)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    line = measured(drawn(6)[:1])[0].to_json()
    for field in ("architecture", "relative", "fingerprint", "version"):
        left = {name: value for name, value in line.items() if name != field}
        with pytest.raises(InputError, match=field):
            Record.from_json(left)


def test_the_line_of_a_file_is_named(tmp_path: Path) -> None:
    lines = [json.dumps(one.to_json()) for one in measured(drawn(6))]
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(lines))
    assert read_recording(file) == measured(drawn(6))
    lines[3] = lines[3].replace('"relative":', '"relatively":', 1)
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 4"):
        read_recording(file)


def test_settings_are_never_mixed() -> None:
    real = measured(drawn(6))
    others = [
        dataclasses.replace(SETTING, **change)
        for change in (
            {"emulated": True},
            {"protocol": 2},
            {"threads": 2},
            {"fingerprint": "11"},
            {"target": "host"},
        )
    ]
    every = real + [dataclasses.replace(one, setting=other) for other in others for one in real]
    random.Random(0).shuffle(every)
    for chosen in (SETTING, *others):
        found = select(
            every,
            device=chosen.fingerprint,
            threads=chosen.threads,
            target=chosen.target,
            emulated=chosen.emulated,
            protocol=chosen.protocol,
        )
        assert len(found) == len(real)
        assert {one.setting for one in found} == {chosen}
    with pytest.raises(InputError, match="cannot be mixed") as caught:
        select(every, device="formula")
    assert "2 threads" in str(caught.value)
    assert "emulated" not in str(caught.value)
    with pytest.raises(InputError, match="There are no real measurements of toaster"):
        select(every, device="toaster")
    with pytest.raises(InputError, match="by protocol 9, but"):
        select(every, protocol=9)
    with pytest.raises(InputError, match="nothing"):
        select([])


def test_what_was_measured_again_is_joined() -> None:
    first, again = measured(drawn(6)), measured(drawn(6), seed=1)
    found = select([*first, *again])
    assert [one.architecture for one in found] == [one.architecture for one in first]
    assert [one.repeat_relative for one in found] == [(one.relative,) for one in again]
    assert all(one.relative_interval == other.relative_interval
               for one, other in zip(found, first, strict=True))  # fmt: skip


def stored(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        **{"device": "local", "target": "host", "seq_len": 8, "batch": 1, "threads": 1},
        **{"precision": "f32", "model": "m", "bundle": "b", "module": "m", "median_ms": 2.0},
        **{"interval": (1.9, 2.1), "p90_ms": 2.1, "p99_ms": 2.2, "samples_ms": (2.0, 2.0)},
        **{"rounds": 2, "stable": True, "reason": "", "relative": 0.5, "emulated": False},
        **{"peak_bytes": 5, "numerics_ok": True, "method": "test", "protocol": 1},
        "fingerprint": "abc",
    }
    return Measurement(**{**values, **changes})


def test_a_store_gives_what_says_its_architecture(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "timings.db")
    wanted = dataclasses.replace(drawn(6)[0], seq_len=8)
    store.add(stored(), architecture={"name": "another"})
    store.add(stored())
    with pytest.raises(InputError, match="None of the 2 timings"):
        of_store(store.path)
    store.add(stored(), architecture=wanted.to_json())
    store.add(stored(relative=None), architecture=wanted.to_json())
    store.add(stored(seq_len=16), architecture=wanted.to_json())
    store.add(stored(batch=2), architecture=wanted.to_json())
    store.add(stored(emulated=True), architecture=wanted.to_json())
    found, left = of_store(store.path)
    assert (len(found), left) == (1, 5)
    assert found[0].architecture == wanted
    assert (found[0].relative, found[0].peak_bytes) == (0.5, 5)
    with pytest.raises(InputError, match="protocol 4"):
        of_store(store.path, protocol=4)
    with pytest.raises(InputError, match="of phone"):
        of_store(store.path, device="phone")
