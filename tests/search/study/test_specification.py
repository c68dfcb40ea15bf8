from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import canao
from canao.cli import app
from canao.errors import CanaoError, InputError
from canao.search.space.architecture import Architecture
from canao.search.study.plan import StudyPlan
from canao.search.study.possible import fastest
from canao.search.study.problem import Problem
from canao.search.study.progress import Progress
from canao.search.study.running import run_trials
from canao.search.study.specification import Specification
from canao.search.study.storage import reachable
from canao.search.study.trial import Finding
from canao.search.study.units import (
    enough_latency,
    enough_loss,
    enough_memory,
    parse_latency,
    parse_loss,
    parse_memory,
)
from tests.search.controllers.synthetic import accuracy_of, latency_of, small_space
from tests.search.study.problems import judge, plan, study


@pytest.mark.parametrize(
    ("text", "value"),
    [("10ms", 10), ("0.5 s", 500), (".25ms", 0.25), ("1s", 1000), ("300us", 0.3)],
)
def test_latencies(text: str, value: float) -> None:
    assert parse_latency(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("64MB", 64_000_000), ("64MiB", 67_108_864), ("1.5kB", 1500), ("7B", 7)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_memory(text) == value


@pytest.mark.parametrize(
    "text",
    ["10", "ms", "10 minutes", "-3ms", "1e3ms", "10ms 5", "", "nan ms", "٣ms", "0ms", "10MS"],
)
def test_no_latencies(text: str) -> None:
    with pytest.raises(InputError, match="latency"):
        parse_latency(text)


@pytest.mark.parametrize("text", ["64", "64mb", "0MB", "0.2B", "MB", "64 M", "9" * 400 + "GB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="memory"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["1", "101%", "-1%", "one%", "1ms"])
def test_no_losses(text: str) -> None:
    with pytest.raises(InputError, match="max-loss"):
        parse_loss(text)


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_one_sentence(text: str) -> None:
    for parse in (parse_latency, parse_memory, parse_loss):
        try:
            found = parse(text)
        except InputError as error:
            said = str(error)
        else:
            said = f"{found}"
            assert found >= 0
        assert len(said.splitlines()) == 1


@given(st.floats(1e-6, 1e6), st.floats(1, 1e12), st.floats(0, 99))
def test_limits_that_are_advised_are_enough(latency: float, size: float, loss: float) -> None:
    """And can be given: the next call parses them."""
    for value, found, finest in (
        (latency, parse_latency(enough_latency(latency)), 1e-9),
        (size, parse_memory(enough_memory(size)), 1.0),
        (loss, parse_loss(enough_loss(loss)), 0.01),
    ):
        assert value <= found <= 1.011 * value + finest
    assert enough_latency(4570.2) == "4580ms"
    assert enough_memory(110e6) == "110MB"


@given(
    latency=st.none() | st.floats(1e-6, 1e6),
    memory=st.none() | st.integers(1, 2**40),
    loss=st.none() | st.floats(0, 100),
)
def test_specifications_round_trip(latency: Any, memory: Any, loss: Any) -> None:
    one = Specification(latency_ms=latency, memory_bytes=memory, max_loss=loss)
    assert Specification.from_json(json.loads(json.dumps(one.to_json()))) == one
    limits = [limit for limit in (latency, memory) if limit is not None]
    assert len(one.violations(1.0, 1.0)) == len(limits)
    assert all(value <= 1e-9 for value in one.violations(latency or 1.0, memory or 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_ms": 0},
        {"latency_ms": float("inf")},
        {"memory_bytes": -1},
        {"max_loss": -0.1},
        {"latency_ms": "3"},
        {"max_loss": True},
    ],
)
def test_impossible_specifications(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Specification(**wrong)


def test_plans_round_trip_and_tell_apart() -> None:
    one = plan()
    assert StudyPlan.from_json(json.loads(json.dumps(one.to_json()))) == one
    other = plan(seed=2, space=small_space(layers=(1,)))
    assert one.differences(other) == ["space", "seed"]
    assert one.digest != other.digest
    # Whoever goes on with other rows or another metric would compare what cannot be compared.
    for name, value in (("dev", "x"), ("metric", "f1"), ("protocol", 2)):
        assert one.differences(plan(**{name: value})) == [name]
    for wrong in ({"devices": ()}, {"controller": "x"}, {"threads": 0}, {"finalists": 1.5}):
        with pytest.raises(InputError):
            plan(**wrong)
    for name in one.to_json():
        with pytest.raises(InputError, match=name):
            StudyPlan.from_json({k: v for k, v in one.to_json().items() if k != name})


class Predicted:
    """Latencies in a reference workload of 5 ms."""

    def predict(self, architectures: Any) -> list[Any]:
        return [
            SimpleNamespace(
                relative=latency_of(one) / 5,
                low=latency_of(one) / 6,
                high=latency_of(one) / 4,
                ms=None,
                outside=one.hidden == 128,
                reason="hidden is beyond what was measured",
            )
            for one in architectures
        ]


class Estimated:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def evaluate(self, architecture: Architecture) -> Any:
        self.asked.append(architecture.digest)
        if len(architecture.layers) == 3:
            raise InputError("three layers are too many")
        value = accuracy_of(architecture)
        return SimpleNamespace(value=value, interval=(value - 1, value + 1), kind="shared")


def test_what_surely_misses_the_limit_is_not_evaluated() -> None:
    estimator, space = Estimated(), small_space()
    problem = Problem(
        predictor=Predicted(),
        reference_ms=5.0,
        memory=lambda architecture: architecture.costs().bytes,
        estimator=estimator,
        specification=Specification(latency_ms=0.8, memory_bytes=300_000),
    )
    import numpy as np

    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(120):
        architecture = space.sample(rng)
        finding, outcome = problem.evaluate(architecture)
        latency, size = latency_of(architecture), architecture.costs().bytes
        asked = architecture.digest in estimator.asked
        # Outside of what was measured the interval promises nothing.
        chance = 3 if architecture.hidden == 128 else 1
        assert asked is (latency * 5 / 6 / chance <= 0.8 and size <= 300_000)
        if asked and len(architecture.layers) == 3:
            assert (finding, outcome.feasible) == (None, False)
            assert "three layers" in outcome.reason
            kinds.add("failed")
            continue
        assert finding is not None
        assert outcome.latency == pytest.approx(latency)
        assert outcome.feasible is (latency <= 0.8 and size <= 300_000)
        assert bool(outcome.reason) is not asked
        assert bool(finding.outside) is (architecture.hidden == 128)
        kinds.add(outcome.reason.split(" at ")[0].split(" to ")[0])
    assert kinds == {"", "failed", "predicted", "estimated"}


def test_memory_refuses_only_beyond_what_it_may_be_off() -> None:
    import numpy as np

    space, estimator = small_space(), Estimated()
    margin, room = 100_000, 300_000
    problem = Problem(
        predictor=Predicted(),
        reference_ms=5.0,
        memory=lambda architecture: architecture.costs().bytes,
        memory_margin=margin,
        estimator=estimator,
        specification=Specification(memory_bytes=room),
    )
    rng, seen = np.random.default_rng(2), set()
    for architecture in (space.sample(rng) for _ in range(60)):
        if len(architecture.layers) == 3:
            continue
        size = architecture.costs().bytes
        finding, outcome = problem.evaluate(architecture)
        assert finding is not None
        assert finding.memory_interval == (max(0, size - margin), size + margin)
        assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
        assert (architecture.digest in estimator.asked) is (size - margin <= room)
        assert outcome.feasible is (size <= room)
        seen.add((size <= room, size - margin <= room))
    assert seen == {(True, True), (False, True), (False, False)}
    _, small = fastest(space, problem, seed=0)
    smallest = min(problem.predict([space.sample(rng) for _ in range(60)]), key=_memory)
    assert small <= smallest.memory_least


def _memory(finding: Finding) -> int:
    return finding.memory_bytes


def test_progress_tells_the_best_and_how_long(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = study(tmp_path / "s", 12)
    run_trials(folder, judge, told=Progress(12, folder.plan.specification, lines.append))
    assert lines[-1].startswith("trial 12 of 12, best ")
    assert any("min to go" in line for line in lines)
    assert any("too slow" in line for line in lines)


def test_a_storage_that_is_lost_is_one_sentence() -> None:
    import sqlalchemy.exc

    message = "sqlite:///x was lost: gone; the same command goes on"
    with pytest.raises(CanaoError, match=message), reachable("sqlite:///x"):
        raise sqlalchemy.exc.SQLAlchemyError("gone\nby now")
    with pytest.raises(ZeroDivisionError), reachable(None):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--latency", "10"], "latency is a number with a unit"),
        (["--memory", "64mb"], "memory is a number with a unit"),
        (["--max-loss", "0.01"], "max-loss is a number with a unit"),
        (["--device", "toaster"], "no device 'toaster'"),
        (["--target", "vulkan-mali"], "does not run vulkan-mali"),
        (["--workers", "0"], "workers must be"),
        (["--training", "/nowhere.toml"], "training options cannot be read"),
        (["--predictor", "/nowhere.json"], "predictor /nowhere.json cannot be read"),
        ([], "nowhere"),
    ],
)
def test_wrong_calls_are_one_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    arguments = [
        "search",
        "minilm",
        "--data",
        str(tmp_path / "nowhere"),
        "-o",
        str(tmp_path / "s"),
    ]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert isinstance(result.exception, InputError), result.output
    assert words in str(result.exception)
    assert not (tmp_path / "s").exists()


def test_reports_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for study_, page, words in (
        ("none", "page.html", "holds no study"),
        ("empty", "page.html", "holds no study"),
        ("empty", "page.pdf", "must be an .html file"),
        ("empty", "no/page.html", "is no directory"),
    ):
        result = CliRunner().invoke(
            app, ["report", str(tmp_path / study_), "-o", str(tmp_path / page)]
        )
        assert isinstance(result.exception, InputError)
        assert words in str(result.exception)


def test_the_report_command_tells_where_the_page_is(tmp_path: Path) -> None:
    study(tmp_path / "s", 3)
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "s"), "-o", str(page), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"path": str(page)}
    assert page.stat().st_size > 1000


def test_optimize_is_public() -> None:
    assert "optimize" in canao.__all__
    with pytest.raises(InputError, match="latency is a number with a unit"):
        canao.optimize("minilm", data="nowhere", output="nowhere", latency="3")
