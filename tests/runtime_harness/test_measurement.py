"""Measurements, their statistics, and the verdict on them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness import environment
from canao.runtime_harness.device import DispatchTime
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.stability import judge, percentile
from canao.runtime_harness.tool_device import settled_at

KEYS = {
    "median_ms",
    "p90_ms",
    "samples_ms",
    "stable",
    "device",
    "target",
    "threads",
    "seq_len",
    "emulated",
    "peak_bytes",
    "numerics_ok",
}
times = st.floats(0.001, 1e6)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    text = st.text(max_size=8)
    samples = tuple(draw(st.lists(times, min_size=1, max_size=5)))
    return Measurement(
        device=draw(text),
        target=draw(text),
        seq_len=draw(st.integers(1, 4096)),
        batch=draw(st.integers(1, 8)),
        threads=draw(st.integers(1, 64)),
        precision="f32",
        model=draw(text),
        bundle="0" * 64,
        module="1" * 64,
        interval=(draw(times), draw(times)),
        rounds=1,
        outliers=draw(st.integers(0, 5)),
        relative=draw(st.none() | times),
        relative_interval=draw(st.none() | st.tuples(times, times)),
        reference=draw(st.none() | st.just({"target": "t", "samples_ms": [1.0]})),
        cores=draw(st.none() | st.just(()) | st.just((0, 3))),
        protocol=draw(st.integers(1, 9)),
        fingerprint=draw(text),
        device_facts={"cpu": draw(text)},
        dispatches=draw(st.just(()) | st.just((DispatchTime(name="d", ms=1.5, calls=2),))),
        median_ms=draw(times),
        p90_ms=draw(times),
        p99_ms=draw(times),
        samples_ms=samples,
        warmup_ms=samples[:1],
        stable=draw(st.booleans()),
        reason=draw(text),
        emulated=draw(st.booleans()),
        peak_bytes=draw(st.none() | st.integers(1, 2**40)),
        numerics_ok=draw(st.none() | st.booleans()),
        method=draw(text),
        device_details={"gpu": draw(text)},
        environment={"load": [0.5]},
    )


@given(measurements())
def test_a_measurement_round_trips_through_json(measurement: Measurement) -> None:
    value = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
    assert value.keys() >= KEYS
    assert Measurement.from_json(value) == measurement


@given(measurements(), st.data())
def test_damaged_json_is_refused(measurement: Measurement, data: st.DataObject) -> None:
    value = measurement.to_json()
    key = data.draw(st.sampled_from(sorted(value)))
    good = value[key]
    junk: Any = data.draw(
        st.sampled_from([[], {}, None, "text", 7.5, True, math.nan, [None], ["1"]])
    )
    value[key] = junk
    try:
        found = Measurement.from_json(value)
    except InputError:
        return
    # Whatever is taken is of the field's type: it can be written and read again.
    assert type(found.to_json()[key]) in (type(good), type(junk), float)
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_missing_unknown_and_later_fields_are_refused() -> None:
    value = measurement_json()
    for wrong in (
        {key: item for key, item in value.items() if key != "median_ms"},
        {**value, "surprise": 1},
        {**value, "schema": 1},
        {**value, "schema": 3},
        {**value, "rounds": 2},
        {**value, "rounds": 0},
        {**value, "samples_ms": []},
        {**value, "interval": [1.0]},
        {**value, "dispatches": [{"name": "d"}]},
        [],
        None,
    ):
        with pytest.raises(InputError):
            Measurement.from_json(wrong)


def measurement_json() -> dict[str, Any]:
    return Measurement(
        device="local",
        target="host",
        seq_len=8,
        batch=1,
        threads=1,
        precision="f32",
        model="m",
        bundle="0",
        module="1",
        interval=(1.0, 1.0),
        rounds=1,
        protocol=1,
        fingerprint="f",
        median_ms=1.0,
        p90_ms=1.0,
        p99_ms=1.0,
        samples_ms=(1.0,),
        stable=True,
        reason="",
        emulated=False,
        peak_bytes=None,
        numerics_ok=None,
        method="",
    ).to_json()


@given(st.lists(times, min_size=1, max_size=30), st.floats(0, 1))
def test_a_percentile_is_a_sample_that_enough_do_not_exceed(
    samples: list[float], fraction: float
) -> None:
    found = percentile(samples, fraction)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= fraction * len(samples) - 1e-9
    smaller = [sample for sample in samples if sample < found]
    assert len(smaller) < fraction * len(samples) + 1e-9 or not smaller


def test_percentiles_of_a_hundred() -> None:
    samples = list(range(100, 0, -1))
    assert [percentile(samples, f) for f in (0, 0.5, 0.9, 0.99, 1)] == [1, 50, 90, 99, 100]
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError):
            percentile(samples, wrong)
    with pytest.raises(InputError):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("samples", "stable", "words"),
    [
        ([10.0] * 20, True, "drift"),
        ([10.0] * 19 + [100.0], True, "drift"),
        ([10.0] * 17 + [100.0] * 3, False, "vary too much"),
        ([10.0] * 10 + [10.7] * 10, False, "slower"),
        ([10.7] * 10 + [10.0] * 10, False, "faster"),
        ([10.0] * 4, False, "too few"),
        ([0.0] * 20, False, "clock"),
        ([10.0, 10.1] * 8 + [13.0] * 2, False, "2 of 18 calls are outliers"),
        ([10.0, 10.6] * 20, False, "two kinds, 50%"),
    ],
)
def test_the_verdict_gives_its_reason(samples: list[float], stable: bool, words: str) -> None:
    verdict = judge(samples)
    assert verdict.stable is stable
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("times_ms", "first", "last", "start"),
    [
        ([900, 10, 10, 10, 10, 10], 1, 3, 1),
        ([900, 500, 10, 10, 10, 10], 1, 3, 2),
        ([900, 500, 400, 300, 10, 10], 1, 3, 3),
        ([10, 10, 10, 900, 10, 10], 1, 3, 1),
    ],
)
def test_calls_that_still_settle_are_warm_up(
    times_ms: list[float], first: int, last: int, start: int
) -> None:
    assert settled_at(times_ms, first, last) == start


def test_the_environment_is_json_and_tells_the_circumstances() -> None:
    found = environment.collect()
    json.dumps(found, allow_nan=False)
    assert {"cpu", "cpus", "kernel", "versions", "affinity", "time"} <= found.keys()
    assert found["versions"]["iree-base-runtime"]
    assert found["cpus"] == len(found["affinity"])


def test_the_environment_is_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : Some CPU\ncpu MHz : 1999.6\nflags : fpu\n")
    frequency = tmp_path / "cpu0" / "cpufreq"
    frequency.mkdir(parents=True)
    (frequency / "scaling_governor").write_text("powersave\n")
    (frequency / "cpuinfo_max_freq").write_text("3000000\n")
    (tmp_path / "intel_pstate").mkdir()
    (tmp_path / "intel_pstate" / "no_turbo").write_text("0\n")
    (tmp_path / "thermal_zone3").mkdir()
    (tmp_path / "thermal_zone3" / "type").write_text("x86_pkg_temp\n")
    (tmp_path / "thermal_zone3" / "temp").write_text("48500\n")
    monkeypatch.setattr(environment, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(environment, "_CPUS", tmp_path)
    monkeypatch.setattr(environment, "_THERMAL", tmp_path)
    found = environment.collect()
    assert found["cpu"] == "Some CPU"
    assert found["governors"] == ["powersave"]
    assert found["max_mhz"] == [3000]
    assert found["current_mhz"] == [2000]
    assert found["boost"] is True
    assert found["virtual"] is False
    assert found["temperatures_c"] == {"x86_pkg_temp (3)": 48.5}
