"""The models that a search proposes are trained and judged on the device."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from canao.errors import InputError
from canao.search.space.architecture import Architecture
from canao.search.study.candidates import candidates
from canao.search.study.finalist import Finalist, Judged, Trained
from canao.search.study.finals import hold_finals
from canao.search.study.folder import StudyFolder
from canao.search.study.measured import Measured
from canao.search.study.result import StudyResult
from canao.search.study.running import run_trials
from canao.search.study.specification import Specification
from canao.search.study.trial import Trial
from tests.search.controllers.synthetic import accuracy_of, latency_of
from tests.search.study.benches import HERE, TEACHER, Bench, begun, found, pool, told
from tests.search.study.problems import judge


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
