"""Which device was measured, and what is taken of its measurements."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from canao.errors import DeviceError, UnsupportedError
from canao.runtime_harness import identity as harness
from canao.runtime_harness.bench import bench
from canao.runtime_harness.device import DispatchTime
from canao.runtime_harness.devices import get
from canao.runtime_harness.identity import identify
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.timing_store import TimingStore
from canao.runtime_harness.workload import WORKLOAD
from canao.search.space.architecture import Architecture
from canao.search.study import bench as benching
from canao.search.study.bench import measure_record
from canao.search.study.identity import identities, strangers
from tests.search.controllers.synthetic import small_space
from tests.search.predictor.test_records import stored
from tests.search.study.benches import measured

STORE = TimingStore("never-written.db")


def test_a_device_is_what_its_measurements_say(monkeypatch: pytest.MonkeyPatch) -> None:
    device = get("local")
    found = bench(WORKLOAD, device, rounds=1, repetitions=1, warmup=0)
    assert identify(device, "host") == found.fingerprint
    assert identities(["local"], "host", threads=1) == {"local": found.fingerprint}
    monkeypatch.setattr(harness, "workload_target", lambda *_: None)
    with pytest.raises(UnsupportedError, match="does not run on local"):
        identify(device, "host")


def test_devices_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    def there(name: str) -> bool:
        return name != "far"

    found = identities(["a", "far"], "host", threads=1, available=there, ask=lambda n: n * 4)
    assert found == {"a": "aaaa"}

    def lost(name: str) -> str:
        raise UnsupportedError(f"nothing runs on {name}")

    with pytest.raises(UnsupportedError, match="nothing runs on a"):
        identities(["a"], "host", threads=1, available=there, ask=lost)


def test_strangers() -> None:
    one, other = measured(1.0), measured(1.0, fingerprint="f" * 16)
    here = {"local": one.fingerprint}
    assert strangers([one, one], here) == []
    (reason,) = strangers([one, other], here)
    assert reason.startswith(f"was measured on another local ({'f' * 16}) than the study's")
    assert len(strangers([one, other], {"phone": one.fingerprint})) == 2


class Opened:
    """A bundle's module, as far as it is looked at."""

    calls = (("run_first", 1), ("run_second", 1), ("run_first", 1))
    features = ("avx2",)

    def module(self, target: str, length: int | None) -> Opened:
        return self


@pytest.mark.parametrize(
    ("spreads", "taken", "kept"),
    [
        ([0.02], 1, 0.02),
        ([0.3, 0.05], 2, 0.05),
        ([0.3, 0.15, 0.2], 3, 0.15),  # never calm: the least disturbed one
    ],
)
def test_what_was_disturbed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, spreads: list[float], taken: int, kept: float
) -> None:
    left = list(spreads)

    def once(*_: Any) -> Measurement:
        spread = left.pop(0)
        return stored(
            relative=2.0,
            relative_interval=(2 * (1 - spread), 2 * (1 + spread)),
            median_ms=10.0 * (1 + spread),
            peak_bytes=6_000_000,
        )

    monkeypatch.setattr(benching, "_measure", once)
    monkeypatch.setattr(benching, "Bundle", SimpleNamespace(open=lambda path: Opened()))
    record, peak = measure_record(
        Path(), "local", architecture(), target="host", threads=1, store=STORE
    )
    assert len(spreads) - len(left) == taken
    assert record.median_ms == pytest.approx(10.0 * (1 + kept))
    # A later compiler may make another program of it: this one was measured.
    assert record.calls == ("run_first", "run_second", "run_first")
    assert (record.stable, record.peak_bytes, peak) == (True, 6_000_000, 6_000_000)
    assert record.setting.cpu_features == ("avx2",)


def test_an_emulated_measurement_counts_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    count = [0]

    def once(*_: Any) -> Measurement:
        count[0] += 1
        return stored(
            device="qemu",
            emulated=True,
            relative=2.0,
            relative_interval=(1.0, 3.0),
            dispatches=(
                DispatchTime(name="run_first", ms=3.0, calls=2),
                DispatchTime(name="run_second", ms=4.0),
            ),
        )

    monkeypatch.setattr(benching, "_measure", once)
    monkeypatch.setattr(benching, "Bundle", SimpleNamespace(open=lambda path: Opened()))
    record, _ = measure_record(
        Path(), "qemu", architecture(), target="arm64", threads=1, store=STORE
    )
    assert (record.setting.emulated, record.spread, count) == (True, 0.0, [1])
    times = (("run_first", 1.5), ("run_first", 1.5), ("run_second", 4.0))
    assert record.dispatches == times  # it tells functions apart, not their calls


def architecture() -> Architecture:
    import numpy as np

    return small_space().sample(np.random.default_rng(0))


def test_a_device_that_is_lost_is_told() -> None:
    def gone(name: str) -> str:
        raise DeviceError(f"{name} was unplugged")

    there = iter([True, False])
    with pytest.raises(DeviceError, match="a was unplugged"):
        identities(["a"], "host", threads=1, available=lambda _: next(there), ask=gone)
