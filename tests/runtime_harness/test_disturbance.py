"""What else uses the cores, what clocks and sensors tell, and which cores are chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness import affinity, disturbance, readings
from canao.runtime_harness.affinity import check_cores, default_cores, pinned
from canao.runtime_harness.disturbance import Disturbance, read_cpu_times, watched_cores
from canao.runtime_harness.readings import cool_down, take_reading
from canao.runtime_harness.stability import judge

needs_pinning = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system cannot pin"
)
CALM = [10.0] * 20


def calm(**changes: float) -> Disturbance:
    fields = {"wall": 2.0, "cpu": 1.99, "busy": 2.0, "cores": 1, "alone": True, **changes}
    return Disturbance(**fields)  # type: ignore[arg-type]


def test_a_calm_machine_is_stable() -> None:
    assert calm().faults() == ()
    assert judge(CALM, disturbance=calm()).stable


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (calm(busy=2.5), "other processes used 26% of the cores' time"),
        (calm(stolen=0.2), "the hypervisor gave 10% of the cores' time away"),
        (calm(cpu=1.5, busy=1.5), "the process was off its core for 25% of the time"),
        (calm(switches=500), "the process was put off 250 times a second"),
    ],
)
def test_a_busy_machine_is_unstable_and_the_reason_says_so(found: Disturbance, words: str) -> None:
    verdict = judge(CALM, disturbance=found)
    assert not verdict.stable
    assert words in verdict.reason


def test_what_cannot_be_told_is_not_held_against_a_measurement() -> None:
    # Short turns, waiting threads, kernels that tell nothing.
    assert calm(wall=0.01, cpu=0.01, busy=0.4, switches=5).faults() == ()
    assert calm(cpu=0.5, busy=0.5, alone=False).faults() == ()
    assert calm(cores=0, busy=0.0).foreign_share is None
    assert Disturbance().faults() == ()


@given(st.lists(st.builds(calm, busy=st.floats(0, 4), switches=st.integers(0, 99)), min_size=2))
def test_disturbances_add_up(found: list[Disturbance]) -> None:
    total = sum(found[1:], found[0])
    assert total.wall == pytest.approx(2.0 * len(found))
    assert total.busy == pytest.approx(sum(one.busy for one in found))
    assert total.switches == sum(one.switches for one in found)
    assert (total.cores, total.alone) == (1, True)
    assert Disturbance(**total.sums()) == total
    assert total.to_json().keys() >= {"foreign_share", "lost_share", *total.sums()}


@needs_pinning
def test_the_kernel_counts_what_a_busy_process_uses() -> None:
    core = affinity.available_cores()[0]
    before = read_cpu_times([core])
    if before is None:
        pytest.skip("this kernel does not tell")
    code = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    with pinned([core]):
        subprocess.run([sys.executable, "-c", code], check=True)
    after = read_cpu_times([core])
    assert after is not None
    assert after.busy - before.busy >= 0.25


def test_processor_times_are_read_for_the_cores_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu 1 1 1 1 1 1 1 1\ncpu0 100 20 30 999 9 4 6 50 7 7\ncpu12 1 0 0 0 0 0 0 0\n"
    )
    monkeypatch.setattr(disturbance, "_STAT", stat)
    ticks = os.sysconf("SC_CLK_TCK")
    found = read_cpu_times([0])
    assert found is not None
    assert (found.busy, found.stolen) == (160 / ticks, 50 / ticks)
    both = read_cpu_times([0, 12])
    assert both is not None
    assert both.busy == 161 / ticks
    assert read_cpu_times([1]) is None
    assert read_cpu_times([]) is None
    stat.write_text("cpu0 x\n")
    assert read_cpu_times([0]) is None
    stat.unlink()
    assert read_cpu_times([0]) is None


def test_siblings_are_watched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for core, listed in ((0, "0,4"), (1, "0-2")):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{listed}\n")
    monkeypatch.setattr(disturbance, "_CPUS", tmp_path)
    assert watched_cores([0]) == (0, 4)
    assert watched_cores([1]) == (0, 1, 2)
    assert watched_cores([7]) == (7,)
    assert watched_cores([]) == ()


@needs_pinning
def test_the_fastest_and_then_the_last_cores_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity, "_CPUS", tmp_path)
    monkeypatch.setattr(affinity, "available_cores", lambda: (0, 1, 2, 3))
    assert default_cores(1) == (3,)
    assert default_cores(2) == (2, 3)
    assert default_cores(5) is None
    for core, speed in enumerate((1800, 2400, 2400, 1800)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{speed}000\n")
    assert default_cores(1) == (2,)
    assert default_cores(3) == (1, 2, 3)


@needs_pinning
def test_chosen_cores_must_be_here_and_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "available_cores", lambda: (0, 1, 3))
    assert check_cores([3, 0, 3], 2) == (0, 3)
    with pytest.raises(InputError, match="no core 2 for this process: use some of 0, 1, 3"):
        check_cores([2], 1)
    with pytest.raises(InputError, match="2 threads need as many cores, not 1"):
        check_cores([1, 1], 2)
    monkeypatch.setattr(affinity, "available_cores", lambda: ())
    with pytest.raises(InputError, match="cannot pin"):
        check_cores([0], 1)


@needs_pinning
def test_pinning_holds_for_this_thread_and_ends() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    seen: list[set[int]] = []

    def look() -> None:
        seen.append(os.sched_getaffinity(0))
        raise KeyError

    with pytest.raises(KeyError), pinned([core]):
        look()
    assert os.sched_getaffinity(0) == before
    with pinned([core]):
        code = "import os; print(*os.sched_getaffinity(0))"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert seen == [{core}]
    assert int(child.stdout) == core
    with pinned(None):
        assert os.sched_getaffinity(0) == before


@pytest.fixture
def sensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A phone with two zones, one of which slows the processor at 80 degrees."""
    monkeypatch.setattr(readings, "_CPUS", tmp_path / "cpus")
    monkeypatch.setattr(readings, "_THERMAL", tmp_path)
    clock = tmp_path / "cpus" / "cpu7" / "cpufreq"
    clock.mkdir(parents=True)
    (clock / "scaling_cur_freq").write_text("2841600\n")
    for name, celsius in (("thermal_zone0", 41), ("thermal_zone1", 52)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{name}-kind\n")
        (tmp_path / name / "temp").write_text(f"{celsius}000\n")
    (tmp_path / "thermal_zone1" / "trip_point_0_type").write_text("passive\n")
    (tmp_path / "thermal_zone1" / "trip_point_0_temp").write_text("80000\n")
    (tmp_path / "thermal_zone1" / "trip_point_1_type").write_text("passive\n")
    (tmp_path / "thermal_zone1" / "trip_point_1_temp").write_text("-273200\n")
    (tmp_path / "cooling_device0").mkdir()
    (tmp_path / "cooling_device0" / "type").write_text("thermal-cpufreq-0\n")
    (tmp_path / "cooling_device0" / "cur_state").write_text("0\n")
    return tmp_path


def test_clocks_and_sensors_are_read(sensors: Path) -> None:
    found = take_reading("before", [6, 7])
    assert found.to_json() == {"when": "before", "mhz": [2842], "celsius": 52.0}
    (sensors / "thermal_zone1" / "temp").write_text("junk\n")
    assert take_reading("after", []).to_json() == {"when": "after", "celsius": 41.0}


def test_a_machine_without_sensors_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "_THERMAL", tmp_path)
    monkeypatch.setattr(readings, "_CPUS", tmp_path)
    monkeypatch.setattr(readings, "_CPUINFO", tmp_path / "none")
    assert take_reading("before", [0]).to_json() == {"when": "before"}


def test_clocks_without_a_governor_are_those_that_the_processors_tell(
    sensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = sensors / "cpuinfo"
    told.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 2100.4\n\n"
        "processor\t: 1\ncpu MHz\t\t: 3399.9\n\nprocessor\t: 2\ncpu MHz\t\t: unknown\n"
    )
    monkeypatch.setattr(readings, "_CPUINFO", told)
    assert take_reading("before", [1, 0]).mhz == (3400, 2100)
    assert take_reading("before", [2, 9]).mhz == ()
    assert take_reading("before", [1, 7]).mhz == (2842,)  # the governor knows better
    told.write_bytes(b"cpu MHz : 1\n\xff\n")  # of no processor
    assert take_reading("before", [0]).mhz == ()


def test_the_gate_waits_until_it_is_cool(sensors: Path) -> None:
    now = [0.0]
    (sensors / "thermal_zone1" / "temp").write_text("79000\n")

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 3:
            (sensors / "thermal_zone1" / "temp").write_text("60000\n")

    found = cool_down(
        "round 1", partial(take_reading, cores=[7]), clock=lambda: now[0], sleep=sleep
    )
    assert (found.hot, found.waited, found.celsius) == ("", 3.0, 60.0)


@pytest.mark.parametrize("cause", ["temperature", "brake"])
def test_what_stays_hot_is_told(cause: str, sensors: Path) -> None:
    if cause == "temperature":
        (sensors / "thermal_zone1" / "temp").write_text("76000\n")
    else:
        (sensors / "cooling_device0" / "cur_state").write_text("2\n")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    found = cool_down(
        "round 1", partial(take_reading, cores=[7]), clock=lambda: now[0], sleep=sleep
    )
    assert found.waited == 60
    assert ("76 degrees" in found.hot) == (cause == "temperature")
    assert ("slows the processor down" in found.hot) == (cause == "brake")
    verdict = judge(CALM, notes=[found.hot])
    assert not verdict.stable
    assert found.hot in verdict.reason
