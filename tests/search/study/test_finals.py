from __future__ import annotations

import dataclasses
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import CanaoError, DeviceError, InputError, NumericsError
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.space.architecture import Architecture
from canao.search.study.baselines import baseline_rows
from canao.search.study.calibration import Calibration
from canao.search.study.candidates import candidates
from canao.search.study.commands import commands_of
from canao.search.study.finalist import Finalist, Judged, Trained
from canao.search.study.finals import Finals, hold_finals
from canao.search.study.folder import StudyFolder
from canao.search.study.guarantee import misses
from canao.search.study.measured import Measured
from canao.search.study.pareto import front_of, hypervolume
from canao.search.study.pool import DevicePool
from canao.search.study.report import write_study_report
from canao.search.study.result import StudyResult, result_of
from canao.search.study.running import run_trials
from canao.search.study.specification import Specification
from canao.search.study.trial import Trial
from tests.search.controllers.synthetic import accuracy_of, latency_of
from tests.search.study.problems import ASKED, judge, plan, study
from tests.search.study.test_calibration import REFERENCE, measure

TEACHER = 75.0
HERE = {"local": "0" * 16}


def measured(latency: float, **changes: Any) -> Measured:
    found = Measured(
        device="local",
        target="host",
        latency_ms=latency,
        interval=(latency * 0.98, latency * 1.02),
        p90_ms=latency * 1.1,
        relative=latency / 5,
        peak_bytes=6_000_000,
        emulated=False,
        stable=True,
        reason="the median is known to 2%",
        fingerprint="0" * 16,
    )
    return dataclasses.replace(found, **changes)


class Bench:
    """Sums over sizes; counts what it is asked for. ``slower``: measured over predicted."""

    def __init__(self, slower: float = 1.0, broken: tuple[int, ...] = ()) -> None:
        self.slower = slower
        self.broken = broken
        self.diverging: tuple[int, ...] = ()
        self.worse = 0.0  # on the device than in PyTorch
        self.gains: dict[str, float] = {}
        self.fingerprint = HERE["local"]
        self.done: list[str] = []
        self._architectures: dict[Path, Architecture] = {}

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        self.done.append(f"inherit {architecture.digest}")
        self._architectures[folder / "inherited.canao"] = architecture
        return folder / "inherited.canao"

    def adapt(self, architecture: Architecture) -> float:
        self.done.append(f"adapt {architecture.digest}")
        if architecture.seq_len in self.diverging:
            raise NumericsError("The loss is not finite.")
        return accuracy_of(architecture) + self.gains.get(architecture.digest, 0.75)

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        self.done.append(f"train {architecture.digest}")
        metric = accuracy_of(architecture) + 1.5
        return Trained(
            directory=str(folder / "model"),
            name="accuracy",
            metric=metric,
            interval=(metric - 1, metric + 1),
            held=metric - 0.5,
            params=10,
            flops=20,
            bytes=30,
            seconds=1.0,
        )

    def compile(
        self, architecture: Architecture, trained: Trained, folder: Path
    ) -> tuple[Path, Architecture]:
        self.done.append(f"compile {architecture.digest}")
        if len(architecture.layers) in self.broken:
            raise NumericsError("The outputs differ.")
        self._architectures[folder / "model.canao"] = architecture
        return folder / "model.canao", architecture

    def measure(self, bundle: Path, device: str) -> Measured:
        self.done.append(f"measure {bundle.name}")
        latency = self.slower * latency_of(self._architectures[bundle])
        return measured(latency, fingerprint=self.fingerprint)

    def evaluate(self, architecture: Architecture, bundle: Path, device: str) -> Judged:
        self.done.append(f"evaluate {bundle.name}")
        metric = accuracy_of(architecture) + 1.5 - self.worse
        return Judged(device=device, metric=metric, interval=(metric - 1, metric + 1))

    def count(self, what: str) -> int:
        return sum(entry.startswith(what) for entry in self.done)


def pool() -> DevicePool[Any]:
    return DevicePool(["local"], available=lambda _: True, pause=0.0)


def found(
    folder: StudyFolder, bench: Bench, here: Mapping[str, str] = HERE
) -> tuple[Mapping[int, Trial], Finals]:
    trials = run_trials(folder, judge)
    finals = hold_finals(
        folder, trials, bench, pool(), teacher=TEACHER, here=here, tell=lambda _: None
    )
    return trials, finals


def told(trials: Mapping[int, Trial], finals: Finals, given: Specification) -> StudyResult:
    teacher = {
        "name": "accuracy",
        "metric": TEACHER,
        "interval": [74.0, 76.0],
        "measured": measured(3.0).to_json(),
    }
    return result_of(
        trials,
        finals,
        specification=given,
        teacher=teacher,
        study="s",
        machine="m",
        seconds=1.0,
    )


def begun(path: Path, given: Specification, trials: int = 30, **changes: object) -> StudyFolder:
    return study(path, trials, specification=given, controller="random", **changes)


def test_the_best_is_the_most_accurate_that_fits(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8, memory_bytes=7_000_000, max_loss=20.0)
    folder, bench = begun(tmp_path / "s", given), Bench()
    trials, finals = found(folder, bench)
    best = finals.passed[0]
    assert best.last is not None
    assert best.last.interval[1] <= 0.8
    fitting = [t for t in trials.values() if latency_of(t.architecture) * 1.02 <= 0.8]
    assert accuracy_of(best.architecture) == max(accuracy_of(t.architecture) for t in fitting)
    result = told(trials, finals, given)
    assert result.best is not None
    assert result.best["trial"] == best.trial
    assert StudyResult.from_json(result.to_json()) == result
    assert {row["trial"] for row in result.refused} >= {
        t.number for t in trials.values() if t.outcome.accuracy is None
    }
    # Trained are only as many as were asked for; those were measured twice and screened once.
    assert bench.count("train") == 2
    assert bench.count("measure model") == 4


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s", Specification(latency_ms=0.8))
    _, first = found(folder, Bench())
    bench = Bench()
    _, again = found(folder, bench)
    assert again == first
    assert bench.done == []
    # A training that was cut short is.
    best = first.passed[0]
    best.replace(trained=None, measured=(), bundle=None).save(
        folder.finalist(best.architecture.digest)
    )
    _, third = found(folder, bench)
    assert third == first
    assert bench.count("train") == 1


def test_a_few_steps_tell_who_is_trained(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8, max_loss=20.0)
    folder, bench = begun(tmp_path / "s", given), Bench()
    _, plain = found(folder, bench)
    fitting = [one for one in plain.finalists if one.screened and not one.refused]
    assert bench.count("adapt") == len(fitting) > 2
    long = [one for one in fitting if one.architecture.seq_len == 32]
    last = min(long, key=lambda one: one.promise)
    assert last.trained is None
    # The least promising one gains more than the others, so it is trained at first.
    other = Bench()
    other.gains = {last.architecture.digest: 40.0}
    other.diverging = (16,)  # who cannot be adapted keeps what was estimated
    _, finals = found(begun(tmp_path / "t", given), other)
    (best,) = [one for one in finals.finalists if one.trial == last.trial]
    assert best.trained is not None
    assert best.promise == pytest.approx(last.estimate + 40.0)
    for one in finals.finalists:
        assert one.refused or (one.adapted is None) is (one.architecture.seq_len == 16)
        assert one.promise >= one.estimate
    # Where all of them are to be trained there is nothing to tell.
    every = Bench()
    found(begun(tmp_path / "u", given, finalists=30), every)
    assert every.count("train") > 2
    assert every.count("adapt") == 0


def test_what_another_device_measured_does_not_count(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s", Specification(latency_ms=0.8))
    _, first = found(folder, Bench())
    # Copied to a machine whose local device is twice as slow.
    bench = Bench(slower=2)
    bench.fingerprint = "f" * 16
    _, moved = found(folder, bench, {"local": "f" * 16})
    assert bench.count("measure") >= len(first.finalists)
    measurements = [m for one in moved.finalists for m in (one.screened, *one.measured) if m]
    assert {one.fingerprint for one in measurements} <= {"f" * 16}
    assert all(one.last and one.last.interval[1] <= 0.8 for one in moved.passed)
    # What was trained is not trained again, but compiled.
    trained = [one for one in first.finalists if one.trained is not None]
    assert bench.count("compile") >= len(trained)
    # A device that is not the one it was at the beginning refuses all.
    _, swapped = found(begun(tmp_path / "t", Specification()), bench)
    assert not swapped.passed
    assert "was measured on another local (ffffffffffffffff)" in swapped.finalists[0].refused[0]
    _, unknown = found(begun(tmp_path / "u", Specification()), bench, {"phone": "f" * 16})
    assert "which has none of that name" in unknown.finalists[0].refused[0]


def test_candidates_may_take_less_memory_than_estimated(tmp_path: Path) -> None:
    trials = run_trials(begun(tmp_path / "s", Specification()), judge)
    sizes = sorted(t.finding.memory_bytes for t in trials.values() if t.finding)
    given = Specification(memory_bytes=sizes[len(sizes) // 2])
    margin = sizes[-1]

    def wider(trial: Trial) -> Trial:
        assert trial.finding is not None
        ends = (max(0, trial.finding.memory_bytes - margin), trial.finding.memory_bytes + margin)
        finding = dataclasses.replace(trial.finding, memory_interval=ends)
        return dataclasses.replace(trial, finding=finding)

    sure = candidates(trials, given)
    maybe = candidates({number: wider(trial) for number, trial in trials.items()}, given)
    assert 0 < len(sure) < len(maybe)
    assert Trial.from_json(wider(trials[0]).to_json()) == wider(trials[0])


class Killed(BaseException):
    """The process ends."""


class Mortal(Bench):
    """A bench whose process ends before the step with the number ``last``."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def measure(self, bundle: Path, device: str) -> Measured:
        self._live()
        return super().measure(bundle, device)

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        self._live()
        return super().inherit(architecture, folder)

    def adapt(self, architecture: Architecture) -> float:
        self._live()
        return super().adapt(architecture)

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        self._live()
        return super().train(architecture, folder)

    def compile(
        self, architecture: Architecture, trained: Trained, folder: Path
    ) -> tuple[Path, Architecture]:
        self._live()
        return super().compile(architecture, trained, folder)

    def evaluate(self, architecture: Architecture, bundle: Path, device: str) -> Judged:
        self._live()
        return super().evaluate(architecture, bundle, device)

    def _live(self) -> None:
        if len(self.done) == self.last:
            raise Killed


def test_killed_at_any_step_the_finals_go_on_with_the_next(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8)
    run_trials(begun(tmp_path / "trials", given, trials=12), judge)
    shutil.copytree(tmp_path / "trials", tmp_path / "whole")
    whole = Bench()
    _, expected = found(StudyFolder.open(tmp_path / "whole"), whole)
    kinds = {"inherit", "adapt", "train", "compile", "measure", "evaluate"}
    assert {step.split()[0] for step in whole.done} == kinds
    for last in range(len(whole.done)):
        place = tmp_path / f"killed-{last}"
        shutil.copytree(tmp_path / "trials", place)
        first, second = Mortal(last), Bench()
        second._architectures = first._architectures
        with pytest.raises(Killed):
            found(StudyFolder.open(place), first)
        _, finals = found(StudyFolder.open(place), second)
        facts = [
            [
                (one.trial, one.screened, one.measured, one.judged, one.refused)
                for one in each.finalists
            ]
            for each in (finals, expected)
        ]
        assert facts[0] == facts[1]
        # Only together the two last measurements of a finalist are a step.
        pair = whole.done[last - 1 : last + 1] == ["measure model.canao"] * 2
        half = pair and whole.done[:last].count("measure model.canao") % 2 == 1
        assert [*first.done[: last - half], *second.done] == whole.done, last


def test_those_who_wait_are_seen_as_what_was_measured_teaches(tmp_path: Path) -> None:
    """Everything is slower than it was predicted: nobody is compiled who cannot fit any more."""
    given = Specification(latency_ms=0.8)
    folder = begun(tmp_path / "s", given)
    trials = run_trials(folder, judge)
    heard: list[int] = []

    def revise(waiting: Sequence[Trial], seen: Sequence[Measured]) -> list[Trial]:
        heard.append(len(seen))
        return [
            dataclasses.replace(
                trial,
                finding=dataclasses.replace(
                    trial.finding, latency_ms=9.0, latency_interval=(8.0, 10.0)
                ),
            )
            for trial in waiting
            if trial.finding
        ]

    bench = Bench(slower=9)
    finals = hold_finals(
        folder,
        trials,
        bench,
        pool(),
        teacher=TEACHER,
        here=HERE,
        tell=lambda _: None,
        revise=revise,
    )
    assert heard == [8]
    assert len(finals.finalists) == 8
    assert not finals.passed


def test_whoever_turns_out_too_slow_is_refused_before_training(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8)
    folder, bench = begun(tmp_path / "s", given), Bench(slower=1.25)
    trials, finals = found(folder, bench)
    slow = [one for one in finals.finalists if one.refused]
    assert slow
    assert all(one.trained is None for one in slow)
    assert "and 0.8 ms are allowed" in slow[0].refused[0]
    assert finals.passed
    assert all(one.last and one.last.interval[1] <= 0.8 for one in finals.passed)
    assert finals.drift == pytest.approx(1.25)
    assert told(trials, finals, given).best is not None


def test_wrong_numbers_are_refused_and_the_next_is_trained(tmp_path: Path) -> None:
    given = Specification(latency_ms=2.0)
    folder = begun(tmp_path / "s", given)
    trials, sound = found(folder, Bench())
    depth = len(sound.passed[0].architecture.layers)
    other = begun(tmp_path / "t", given)
    _, finals = found(other, Bench(broken=(depth,)))
    refused = [one for one in finals.finalists if one.refused]
    assert {one.refused for one in refused} == {("The outputs differ.",)}
    assert all(len(one.architecture.layers) != depth for one in finals.passed)
    stages = {row["stage"] for row in told(trials, finals, given).refused}
    assert "trained" in stages


def test_what_is_worse_on_the_device_is_refused(tmp_path: Path) -> None:
    """The guarantee is of the bundle on the device, not of the model in PyTorch."""
    sound, worse = Bench(), Bench()
    worse.worse = 30.0
    given = Specification(latency_ms=0.8, max_loss=20.0)
    trials, finals = found(begun(tmp_path / "s", given), sound)
    assert finals.passed
    assert sound.count("evaluate") == sum(one.trained is not None for one in finals.finalists)
    best = told(trials, finals, given).best
    assert best is not None
    assert best["accuracy_on"] == "local"
    trials, finals = found(begun(tmp_path / "t", given), worse)
    assert not finals.passed
    trained = [one for one in finals.finalists if one.trained]
    assert len(trained) == 6
    for one in trained:
        assert one.trained is not None
        assert one.metric == pytest.approx(one.trained.metric - 30.0)
        assert "below the teacher's 75.00, and 20 are allowed" in one.refused[0]
    message = told(trials, finals, given).message
    assert f" 6 were trained, and {finals.untried} more may meet it: " in message
    assert finals.untried > 0


def test_who_is_too_far_from_the_teacher_is_not_trained(tmp_path: Path) -> None:
    """Fast models are on the front, too; training never gained what they would have to gain."""
    trials = run_trials(begun(tmp_path / "s", Specification(latency_ms=2.0)), judge)
    shapes = {trial.architecture for trial in trials.values()}
    best = sorted(accuracy_of(one) for one in shapes if 1.02 * latency_of(one) <= 2.0)[-3]
    given = Specification(latency_ms=2.0, max_loss=TEACHER - best - 1.5)
    folder, bench = begun(tmp_path / "t", given, finalists=3), Bench()
    _, finals = found(folder, bench)
    assert len(finals.passed) == 3
    trained = [one for one in finals.finalists if one.trained]
    # The gain was 0.75 over what a few steps gave, and a point of luck is granted.
    assert all(one.promise + 0.75 + 1.0 >= best + 1.5 for one in trained)
    hopeless = [one for one in finals.finalists if one.promise + 1.75 < best + 1.5]
    assert hopeless
    assert finals.untried >= len(hopeless)


def test_an_emulated_device_is_not_asked_for_the_accuracy(tmp_path: Path) -> None:
    class Emulated(Bench):
        def measure(self, bundle: Path, device: str) -> Measured:
            return dataclasses.replace(super().measure(bundle, device), emulated=True)

    bench, given = Emulated(), Specification(latency_ms=0.8, max_loss=20.0)
    trials, finals = found(begun(tmp_path / "s", given), bench)
    assert finals.passed
    assert bench.count("evaluate") == 0
    best = told(trials, finals, given).best
    assert best is not None
    assert best["accuracy_on"] == "PyTorch"


def test_layers_are_told_as_they_were_compiled(tmp_path: Path) -> None:
    """Calibration may keep a layer wider than asked."""

    class Wider(Bench):
        def compile(
            self, architecture: Architecture, trained: Trained, folder: Path
        ) -> tuple[Path, Architecture]:
            bundle, _ = super().compile(architecture, trained, folder)
            return bundle, dataclasses.replace(architecture, rest="bf16")

    given = Specification(latency_ms=0.8)
    trials, finals = found(begun(tmp_path / "s", given), Wider())
    best = told(trials, finals, given).best
    assert best is not None
    assert best["compiled"] != best["architecture"]


@pytest.mark.parametrize(
    ("given", "bench", "message"),
    [
        (Specification(latency_ms=0.8, max_loss=0.1), Bench(), r"--max-loss [\d.]+% would take"),
        (Specification(latency_ms=0.5), Bench(slower=9), r"--latency [\d.]+ms would take trial"),
        (Specification(memory_bytes=5_000_000), Bench(), r"--memory 6\.03MB would take trial"),
        (
            Specification(latency_ms=0.001),
            Bench(),
            r"the fastest is predicted at .*allow --latency",
        ),
        (
            Specification(latency_ms=0.5, memory_bytes=5_000_000),
            Bench(slower=9),
            r"--latency [\d.]+ms with --memory 6\.03MB would take trial \d+, not trained yet",
        ),
        (Specification(latency_ms=9.0), Bench(broken=(1, 2, 3)), r"because: The outputs differ;"),
    ],
)
def test_none_fits(tmp_path: Path, given: Specification, bench: Bench, message: str) -> None:
    trials, finals = found(begun(tmp_path / "s", given, trials=12), bench)
    result = told(trials, finals, given)
    assert result.best is None
    assert not finals.passed
    assert result.message.startswith(f"No model meets the specification ({given})")
    assert re.search(message, result.message)


def test_what_would_have_to_give_is_enough(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.5)
    trials, finals = found(begun(tmp_path / "s", given, trials=12), Bench(slower=9))
    offered = told(trials, finals, given).message.split("--latency ")[1].split("ms")[0]
    loose = begun(tmp_path / "t", Specification(latency_ms=float(offered)), trials=12)
    assert found(loose, Bench(slower=9))[1].passed


def test_all_that_would_have_to_give_is_enough(tmp_path: Path) -> None:
    """Of the model that misses several limits by the least."""
    given = Specification(latency_ms=0.5, memory_bytes=5_000_000, max_loss=20.0)
    trials, finals = found(begun(tmp_path / "s", given, trials=12), Bench(slower=9))
    message = told(trials, finals, given).message
    options = re.search(r"--latency (\S+) with --memory (\S+) would", message)
    assert options is not None
    loose = Specification.parse(latency=options[1], memory=options[2], max_loss="20%")
    assert found(begun(tmp_path / "t", loose, trials=12), Bench(slower=9))[1].passed


def test_the_front_is_of_what_was_measured(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8, max_loss=20.0)
    trials, finals = found(begun(tmp_path / "s", given), Bench(slower=1.2))
    result = told(trials, finals, given)
    measured = {row["trial"]: row for row in result.measured}
    assert result.pareto
    assert all(measured[row["trial"]] == row for row in result.pareto)
    for trained, height in ((True, "accuracy"), (False, "estimate")):
        front = [row for row in result.pareto if row["trained"] is trained]
        for row in (row for row in result.measured if row["trained"] is trained):
            assert any(
                one["latency_ms"] <= row["latency_ms"] and one[height] >= row[height]
                for one in front
            )
    for row in result.measured:
        low, high = row["estimate_interval"]
        assert low < row["estimate"] < high
    assert {row["trial"] for row in result.estimated} <= set(trials)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"interval": (0.9, 1.001)}, ["at most 1.001 ms, and 1 ms are allowed"]),
        ({"peak_bytes": 9_000_000}, ["takes 9 MB, and 8 MB are allowed"]),
        ({"peak_bytes": None}, ["memory cannot be told"]),
        ({"interval": (1, 2), "peak_bytes": 9_000_000}, ["at most 2 ms", "takes 9 MB"]),
    ],
)
def test_refusals(changes: dict[str, Any], words: list[str]) -> None:
    given = Specification(latency_ms=1.0, memory_bytes=8_000_000, max_loss=1.0)
    # One of several measurements is enough to be refused.
    both = [measured(0.9), measured(0.9, **changes)]
    reasons = misses(given, both, metric=90.0, teacher=91.0)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
    lost = misses(given, both, metric=89.9, teacher=91.0, name="F1")
    assert lost[len(words) :] == ["F1 is 89.90, 1.10 below the teacher's 91.00, and 1 are allowed"]
    assert misses(Specification(), both, metric=0.0, teacher=91.0) == []


def test_candidates_come_by_front_and_accuracy(tmp_path: Path) -> None:
    trials = run_trials(begun(tmp_path / "s", Specification(latency_ms=0.8)), judge)
    order = candidates(trials, Specification(latency_ms=0.8))
    assert order
    first = order[0]
    assert first.outcome.accuracy == max(
        trial.outcome.accuracy or 0 for trial in trials.values() if trial.outcome.feasible
    )
    places = [trial.outcome.feasible for trial in order]
    assert places == sorted(places, reverse=True)
    assert all(t.finding and t.finding.latency_interval[0] <= 0.8 for t in order)


POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@given(POINTS)
def test_fronts(points: list[tuple[int, int]]) -> None:
    front = front_of(points, lambda p: (float(p[0]), float(p[1])))
    for point in points:
        better = [f for f in front if f[0] <= point[0] and f[1] >= point[1]]
        assert better
    for one in front:
        assert not any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in points)
    # The area is that of the cells of a grid that some point dominates.
    cells = sum(any(p[0] <= x and p[1] > y for p in points) for x in range(10) for y in range(10))
    assert hypervolume([(float(x), float(y)) for x, y in points], (10.0, 0.0)) == cells


def test_a_device_that_is_lost_returns_its_job() -> None:
    lost, log, lock = set(), [], threading.Lock()

    def job(number: int) -> Callable[[str], str]:
        def run(device: str) -> str:
            with lock:
                log.append((number, device))
            time.sleep(0.01)
            if device == "bad" and number >= 1:
                lost.add("bad")
                raise DeviceError("bad was lost")
            return f"{number} on {device}"

        return run

    devices = DevicePool[str](["bad", "good"], available=lambda name: name not in lost, pause=0)
    results = devices.run([job(number) for number in range(6)])
    assert [str(result)[0] for result in results] == list("012345")
    assert sum(device == "bad" for _, device in log) <= 2

    alone = DevicePool[str](["bad"], available=lambda name: False, pause=0)
    with pytest.raises(DeviceError, match=r"Every device was lost \(bad\): bad was lost; the"):
        alone.run([job(2)])
    with pytest.raises(ZeroDivisionError):
        alone.run([lambda device: str(1 // 0)])


def test_a_job_that_loses_devices_ends() -> None:
    calls = []

    def fatal(device: str) -> str:
        calls.append(device)
        raise DeviceError("it hangs")

    def wrong(device: str) -> str:
        raise InputError("no such target")

    devices = DevicePool[str](["a", "b"], available=lambda name: True, pause=0)
    first, second, third = devices.run([fatal, wrong, lambda device: "fine"])
    assert isinstance(first, DeviceError)
    assert isinstance(second, CanaoError)
    assert third == "fine"
    assert len(calls) == 3


def test_one_job_a_device_at_a_time() -> None:
    """Also where two studies on this machine want the same one."""
    active, most, lock = [0], [0], threading.Lock()

    def job(device: str) -> str:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.02)
        with lock:
            active[0] -= 1
        return device

    studies = [DevicePool[str](["phone:1"], available=lambda name: True) for _ in range(2)]
    threads = [threading.Thread(target=one.run, args=([job] * 3,)) for one in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_finalists_round_trip(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s", Specification(latency_ms=0.8), trials=12)
    _, finals = found(folder, Bench())
    for one in finals.finalists:
        assert Finalist.from_json(one.to_json()) == one
    place = folder.finalist(finals.finalists[0].architecture.digest)
    for text in ("{", "[]", '{"version": 1}'):
        (place / "finalist.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="damaged"):
            Finalist.read(place)


def test_the_page_tells_everything_and_needs_no_network(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8, max_loss=20.0)
    folder = StudyFolder.begin(
        tmp_path / "s", plan(specification=given), trials=20, storage=None, asked=ASKED
    )
    place = tmp_path / "page.html"
    write_study_report(tmp_path / "s", place)  # before anything was tried
    assert sorted(file.name for file in folder.path.iterdir()) == ["study.json", "workers"]
    trials, finals = found(folder, Bench(slower=1.2))
    write_study_report(tmp_path / "s", place)
    assert "The study is not finished" in place.read_text(encoding="utf-8")
    result = told(trials, finals, given)
    folder.result.write_text(json.dumps(result.to_json()), encoding="utf-8")
    other = plan(specification=given, controller="random")
    run_trials(
        StudyFolder.begin(tmp_path / "o", other, trials=8, storage=None, asked=ASKED), judge
    )
    write_study_report(tmp_path / "s", place, [tmp_path / "o"])
    text = place.read_text(encoding="utf-8")
    assert result.best is not None
    for wanted in (
        f"Trial {result.best['trial']}: accuracy",
        "<svg viewBox",
        "random, seed 1",
        "tpe, seed 1",
        "--latency 0.8ms --max-loss 20%",
        "--split dev",
        "front of the trained",
        "front of the not trained, by estimate",
        "estimated front",
        result.refused[0]["reasons"][0],
        "were predicted to within 10 %",
        "&lt;b&gt;model",  # names are escaped
    ):
        assert wanted in text
    assert "not only their controllers differ" not in text
    third = plan(specification=Specification(latency_ms=0.7))
    run_trials(
        StudyFolder.begin(tmp_path / "q", third, trials=4, storage=None, asked=ASKED), judge
    )
    write_study_report(tmp_path / "s", place, [tmp_path / "q"])
    unlike = place.read_text(encoding="utf-8")
    assert "q (tpe, seed 1) has another specification than this study" in unlike
    assert "tpe, seed 1, q" in unlike
    assert "<script src" not in text
    assert "<link" not in text
    search, _, again = commands_of(folder, result)[1:]
    assert search.startswith("canao search '<b>model' --data data")
    assert "--data data --split dev --device local --seq-len" in again


def test_the_page_has_baselines_beside_the_predictor(tmp_path: Path) -> None:
    """They learn from what the predictor has learned from, and are tried on the finalists."""
    given = Specification(latency_ms=0.8)
    folder = begun(tmp_path / "s", given)
    trials, finals = found(folder, Bench())
    result = told(trials, finals, given)
    assert baseline_rows(folder, result) == []  # what the device is like is not here
    drawn = {one.digest: one for one in map(folder.plan.space.sample, [RNG] * 60)}
    records = [measure(Path(), "local", one)[0] for one in drawn.values()][:25]
    known = Calibration(
        predictor=LatencyPredictor.fit(records[:24]),
        reference_ms=REFERENCE,
        memory_base=1,
        memory_margin=0,
        records=tuple(records),
    )
    folder.calibration.write_text(json.dumps(known.to_json()), encoding="utf-8")
    rows = {row[0]: row[1:] for row in baseline_rows(folder, result)}
    assert list(rows) == ["predictor", "flops", "neural net", "look-up"]
    assert rows.pop("look-up") == ("no dispatch was timed", "", "", "")
    assert {row[0] for row in rows.values()} == {"24"}
    assert rows["predictor"][1] == "0.0%"  # the finalists took what was predicted
    folder.result.write_text(json.dumps(result.to_json()), encoding="utf-8")
    page = write_study_report(folder.path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>neural net</td>" in page
    # Of a predictor that learned elsewhere nothing here can teach others.
    elsewhere = dataclasses.replace(known, records=())
    folder.calibration.write_text(json.dumps(elsewhere.to_json()), encoding="utf-8")
    assert baseline_rows(folder, result)[1][:2] == ("simpler ones", "too few measurements")


RNG = np.random.default_rng(5)
