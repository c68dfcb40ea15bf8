"""Rounds, starts and turns, with devices whose times are known; and the process that stays."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import DeviceError, InputError
from canao.runtime_harness import readings, resident
from canao.runtime_harness.affinity import available_cores
from canao.runtime_harness.bench import bench
from canao.runtime_harness.bootstrap import Estimate
from canao.runtime_harness.bundle import Bundle, ModuleEntry
from canao.runtime_harness.comparison import _judge as judge_ratio
from canao.runtime_harness.comparison import compare
from canao.runtime_harness.device import RawTiming
from canao.runtime_harness.disturbance import Disturbance
from canao.runtime_harness.interleave import measured_cores, take_turns
from canao.runtime_harness.local import LocalDevice
from canao.runtime_harness.protocol import EMULATED, REAL, Plan
from canao.runtime_harness.readings import Reading
from canao.runtime_harness.reference import example_inputs
from canao.runtime_harness.resident import ResidentStopwatch
from canao.runtime_harness.turns import Contestant, is_steady, refreshing_calls
from canao.runtime_harness.workload import WORKLOAD, reference_bundle, workload_target

from .test_bench import copy_with
from .tiny import needed


class Clockwork:
    """A device elsewhere, whose every call takes what a script says; notes what it is asked."""

    name = "clockwork"

    def __init__(self, script: Any = lambda target, call: 10.0) -> None:
        self._inner, self._script = LocalDevice(), script
        self.asked: list[tuple[str, int, int]] = []
        self.check = self._inner.check
        self.run = self._inner.run

    def info(self) -> Any:
        return dataclasses.replace(self._inner.info(), name=self.name)

    def bench(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, Any],
        *,
        threads: int = 1,
        repetitions: int,
        warmup: int,
        timeout: float | None = None,
    ) -> RawTiming:
        which = str(bundle.path.name)
        self.asked.append((which, repetitions, warmup))
        turn = sum(name == which and calls > 1 for name, calls, _ in self.asked)
        times = tuple(self._script(which, turn) for _ in range(repetitions + warmup))
        return RawTiming(
            samples_ms=times[warmup:],
            warmup_ms=times[:warmup],
            peak_bytes=1,
            emulated=False,
            method="by the script",
            details={"gears": 3},
        )


def contestant(bundle: Bundle, target: str = "host", seq_len: int = 8) -> Contestant:
    module = bundle.module(target, seq_len)
    return Contestant(bundle=bundle, module=module, inputs=example_inputs(bundle, module))


@given(st.integers(1, 60), st.integers(1, 8))
def test_every_round_belongs_to_a_start(rounds: int, starts: int) -> None:
    plan = dataclasses.replace(REAL, rounds=rounds, starts=starts)
    found = plan.rounds_of_starts()
    assert sum(found) == rounds
    assert len(found) == min(starts, rounds)
    assert max(found) - min(found) <= 1


@given(st.integers(1, 500), st.none() | st.integers(1, 40))
def test_at_least_as_many_calls_as_asked_for(repetitions: int, rounds: int | None) -> None:
    plan = REAL.changed(rounds=rounds, repetitions=repetitions, warmup=None)
    total = plan.rounds * plan.calls_for(1.0)
    assert repetitions <= total < repetitions + plan.rounds
    assert plan.warmup == REAL.warmup


@given(st.floats(1e-9, 1e6), st.sampled_from([REAL, EMULATED]))
def test_a_turn_lasts_about_as_long_as_planned(typical_ms: float, plan: Plan) -> None:
    calls = plan.calls_for(typical_ms)
    assert plan.min_calls <= calls <= plan.max_calls
    if plan.min_calls < calls < plan.max_calls:
        assert abs(calls * typical_ms - plan.turn_ms) <= typical_ms
    assert plan.calls_for(typical_ms, reference=True) <= calls


def test_every_other_round_goes_backwards(encoder_bundle: Bundle) -> None:
    device = Clockwork()
    plan = dataclasses.replace(REAL, rounds=4, starts=2, calls=3)
    names = [encoder_bundle, reference_bundle()]
    first, second = contestant(names[0]), contestant(names[1], "x86_64", 64)
    found = take_turns(device, [first, second], plan, threads=1, cores=None, references=1)  # type: ignore[arg-type]
    turns = [name for name, calls, _ in device.asked if calls > 1]
    a, b = encoder_bundle.path.name, WORKLOAD.name
    assert turns == [a, b, b, a, a, b, b, a]
    assert [len(one) for one in found.series[0].rounds] == [3] * 4
    assert [len(one) for one in found.series[1].rounds] == [5] * 4
    assert found.readings == ()  # the device is elsewhere


def test_drift_of_the_machine_cancels_out_of_the_relative_time(encoder_bundle: Bundle) -> None:
    """Both become slower by half: the median tells little, the relative time is exact."""

    def script(which: str, turn: int) -> float:
        return (1 + 0.025 * turn) * (3.0 if which == WORKLOAD.name else 12.0)

    found = bench(encoder_bundle, Clockwork(script), seq_len=8)  # type: ignore[arg-type]
    assert found.relative == pytest.approx(4, rel=0.01)
    assert not found.stable
    assert "the machine became slower" in found.reason
    assert found.peak_bytes == 1
    assert found.cores is None
    assert found.device_facts == {"device": "clockwork", "emulated": False, "gears": 3}


def test_a_calm_device_is_stable_and_one_of_two_kinds_is_not(encoder_bundle: Bundle) -> None:
    random = np.random.default_rng(0)

    def steady(which: str, turn: int) -> float:
        return 10.0 + float(random.normal(0, 0.05))

    calm = bench(encoder_bundle, Clockwork(steady), seq_len=8)  # type: ignore[arg-type]
    assert calm.stable, calm.reason
    assert calm.interval[1] - calm.interval[0] < 0.2

    def moody(which: str, turn: int) -> float:
        return steady(which, turn) + (turn % 2 if which != WORKLOAD.name else 0)

    found = bench(encoder_bundle, Clockwork(moody), seq_len=8)  # type: ignore[arg-type]
    assert not found.stable
    assert "two kinds" in found.reason


def test_compare_gives_the_ratio_of_the_times(encoder_bundle: Bundle, tmp_path: Any) -> None:
    other = copy_with(encoder_bundle, tmp_path / "slow")

    def script(which: str, turn: int) -> float:
        return (1 + 0.05 * turn) * (15.0 if which == "slow" else 10.0)

    device: Any = Clockwork(script)
    found = compare(encoder_bundle, other, device, seq_len=8, rounds=6)
    assert found.ratio == pytest.approx(1.5, rel=0.01)
    assert found.interval[0] <= found.ratio <= found.interval[1]
    assert found.stable  # though both sides drift
    assert not found.measurement.stable
    assert found.other.bundle == other.digest
    back = compare(other, encoder_bundle, device, seq_len=8, rounds=6)
    assert back.ratio == pytest.approx(1 / found.ratio, rel=0.01)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(("noise", "rounds"), [(0.002, 40), (0.3, 160)])
def test_a_ratio_is_measured_until_it_is_known(
    noise: float, rounds: int, encoder_bundle: Bundle, tmp_path: Any
) -> None:
    other = copy_with(encoder_bundle, tmp_path / "other")
    random = np.random.default_rng(0)

    def script(which: str, turn: int) -> float:
        return 10.0 * float(np.exp(random.normal(0, noise)))

    device: Any = Clockwork(script)
    found = compare(encoder_bundle, other, device, seq_len=8)
    assert found.measurement.rounds == found.other.rounds == rounds
    asked = compare(encoder_bundle, other, device, seq_len=8, rounds=6)
    assert asked.measurement.rounds == 6


def test_a_ratio_that_varies_is_unstable(encoder_bundle: Bundle, tmp_path: Any) -> None:
    other = copy_with(encoder_bundle, tmp_path / "moody")
    random = np.random.default_rng(0)

    def script(which: str, turn: int) -> float:
        return float(10 * np.exp(random.normal(0, 0.5))) if which == "moody" else 10.0

    found = compare(encoder_bundle, other, Clockwork(script), seq_len=8, rounds=6)  # type: ignore[arg-type]
    assert not found.stable
    assert found.reason.endswith("only")


def test_a_ratio_taken_on_busy_cores_is_unstable() -> None:
    known = Estimate(value=1.5, low=1.49, high=1.51)
    calm = Disturbance(wall=2.0, cpu=2.0, busy=2.0, cores=1, alone=True)
    assert judge_ratio(known, calm).stable
    verdict = judge_ratio(known, calm + Disturbance(wall=2.0, cpu=1.0, busy=2.0, alone=True))
    assert not verdict.stable
    assert "other processes used 25%" in verdict.reason


@pytest.mark.skipif(not available_cores(), reason="this system cannot pin")
def test_beside_a_busy_process_the_verdict_is_unstable_and_says_why() -> None:
    core = available_cores()[-1]
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", code])
    try:
        found = bench(reference_bundle(), cores=[core], rounds=3)
    finally:
        busy.kill()
        busy.wait()
    assert not found.stable
    assert "the cores were busy" in found.reason


def test_compare_refuses_what_cannot_be_compared(encoder_bundle: Bundle, tmp_path: Any) -> None:
    from . import tiny

    short = copy_with(encoder_bundle, tmp_path / "short")
    with pytest.raises(InputError, match="not compiled for 16 tokens"):
        compare(encoder_bundle, short)
    foreign = tiny.write_encoder(tmp_path / "arm", ["arm64"])
    with pytest.raises(InputError, match=r"module for 'host', and .* has none \(only for arm64"):
        compare(encoder_bundle, foreign)
    batched = tiny.write_encoder(tmp_path / "batch", ["host"], batch=2)
    with pytest.raises(InputError, match="do not take the same inputs"):
        compare(encoder_bundle, batched)
    unmasked = tiny.write(
        tmp_path / "other",
        [(tiny.entry("host", 16), b"never loaded")],
        inputs=tiny.ENCODER_INPUTS[:1],
        outputs=tiny.ENCODER_OUTPUTS,
    )
    with pytest.raises(InputError, match="do not take the same inputs"):
        compare(encoder_bundle, unmasked)


def test_cores_of_another_machine_cannot_be_chosen() -> None:
    device: Any = Clockwork()
    assert measured_cores(device, "cpu", None, 1) is None
    with pytest.raises(InputError, match="clockwork is not on this machine"):
        measured_cores(device, "cpu", [0], 1)


def test_compare_on_this_machine(encoder_file: Bundle, encoder_bundle: Bundle) -> None:
    found = compare(encoder_bundle, encoder_file, rounds=2, threads=2, reference=encoder_bundle)
    assert found.ratio > 0
    assert found.measurement.threads == found.other.threads == 2
    assert found.measurement.numerics_ok is True
    assert found.measurement.fingerprint == found.other.fingerprint


@pytest.mark.parametrize(
    ("samples", "steady"),
    [
        ([900, 500, 10, 10, 10], False),
        ([900, 10, 10, 10, 10], True),
        ([10, 10, 10], False),
        ([10, 9.9, 10, 9.8], True),
        ([10, 10, 8, 8], False),
        ([8, 8, 10, 10], True),
    ],
)
def test_calls_are_steady_once_they_no_longer_become_faster(
    samples: list[float], steady: bool
) -> None:
    assert is_steady(samples, 2) is steady
    assert refreshing_calls(samples[0]) == (1 if samples[0] > 50 else 2)


def test_an_unsteady_warm_up_is_told(encoder_bundle: Bundle) -> None:
    falling = (1000 * 0.9**call for call in itertools.count())

    def script(target: str, turn: int) -> float:
        return 10.0 if turn else next(falling)

    device: Any = Clockwork(script)
    found = bench(encoder_bundle, device, warmup=8, reference=encoder_bundle)
    assert not found.stable
    assert "did not become steady" in found.reason
    found = bench(encoder_bundle, Clockwork(), warmup=8, reference=encoder_bundle)  # type: ignore[arg-type]
    assert "steady" not in found.reason


def test_a_device_elsewhere_tells_how_hot_it_is(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    device: Any = Clockwork()
    asked: list[str] = []

    def reading(when: str) -> Reading:
        asked.append(when)
        return Reading(when=when, mhz=(1800,), celsius=50.0, hot="warm" * (len(asked) == 3))

    device.reading = reading
    monkeypatch.setattr(readings, "_PAUSE", 0.01)
    found = bench(encoder_bundle, device, reference=encoder_bundle)
    told = found.environment["readings"]
    assert told[0] == {"when": "before", "mhz": [1800], "celsius": 50.0}
    assert [one["when"] for one in told] == [
        "before",
        *(f"round {number}" for number in range(1, 21)),
        "after",
    ]
    assert len(asked) == len(told) + 1
    assert [one["when"] for one in told if "waited" in one] == ["round 2"]


def test_the_timing_process_ends_with_its_user(encoder_bundle: Bundle) -> None:
    stopwatch = ResidentStopwatch(
        "local", [contestant(encoder_bundle)], threads=1, cores=None, timeout=60
    )
    with stopwatch:
        stopwatch.start()
        process = stopwatch._process
        assert process is not None
        warm = stopwatch.warm(0, 7)
        assert warm.calls >= 7
        assert len(warm.samples_ms) <= 50
        assert len(stopwatch.turn(0, 3).samples_ms) == 3
    assert process.poll() == 0


def test_a_timing_process_that_dies_or_hangs_is_told(encoder_bundle: Bundle) -> None:
    for number, words in ((signal.SIGKILL, "was killed"), (signal.SIGSTOP, "did not end within")):
        with ResidentStopwatch(
            "local", [contestant(encoder_bundle)], threads=1, cores=None, timeout=60
        ) as stopwatch:
            stopwatch.start()
            process = stopwatch._process
            assert process is not None
            os.kill(process.pid, number)
            stopwatch._timeout = 0.2
            with pytest.raises(DeviceError, match=words):
                stopwatch.turn(0, 3)
        assert process.poll() is not None


def test_an_error_in_the_timing_process_keeps_its_kind(encoder_bundle: Bundle) -> None:
    bad = contestant(encoder_bundle)
    bad = dataclasses.replace(bad, module=dataclasses.replace(bad.module, seq_len=9))
    with (
        ResidentStopwatch("local", [bad], threads=1, cores=None, timeout=60) as stopwatch,
        pytest.raises(InputError, match="use one of 8, 16"),
    ):
        stopwatch.start()


def test_a_timing_process_ends_when_its_user_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", resident._MODULE],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("local", "host", ("x86_64", "x86_64-v3", "aarch64")),
        ("vulkan", "vulkan-llvmpipe", ("vulkan-llvmpipe",)),
        ("qemu", "arm64", ("aarch64",)),
    ],
)
def test_the_workload_has_a_module_for_every_kind_of_device(
    name: str, target: str, expected: tuple[str, ...]
) -> None:
    assert workload_target(needed(name), target) in expected


def test_where_the_workload_has_no_module_there_is_no_relative_time(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canao.runtime_harness.contest.workload_target", lambda *_: None)
    found = bench(encoder_bundle, Clockwork(), seq_len=8, rounds=2)  # type: ignore[arg-type]
    assert (found.relative, found.relative_interval, found.reference) == (None, None, None)
