"""Timing candidates: one that crashes, hangs, is wrong or does not compile costs itself only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from canao import targets
from canao.compiler.kernels.choosing import tuning
from canao.compiler.kernels.choosing.candidates import Candidate, candidates_for
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.labels import GATHERED, LINALG, SPARSE, packing_of
from canao.compiler.kernels.choosing.measure import Effort, Measured, measure
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.runner import rounds_of
from canao.compiler.kernels.choosing.table import read_table
from canao.compiler.kernels.choosing.zeros import INPUTS
from canao.compiler.kernels.emitter import Emitter
from canao.compiler.kernels.values import Buffer, Value

HOST = targets.get("host")
PROBLEM = Problem("f32", 5, 48, 40)
# Drift cannot be asked of a machine that runs tests.
QUICK = Effort(rounds=3, most_rounds=3, drift=1e9, run_seconds=8.0)

Body = Callable[[Emitter, dict[str, Buffer], Value], None]


def fake(name: str, body: Body) -> Candidate:
    """A candidate like the rule's, with another body."""
    rule = candidates_for(HOST.features, PROBLEM)[0]
    if rule.kernel is None:
        pytest.skip("no engine runs here")
    return dataclasses.replace(
        rule, label=name, kernel=dataclasses.replace(rule.kernel, name=name, body=body)
    )


def crash(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
    del group
    null = e.op(f"llvm.inttoptr {e.literal(8, 'i64')} : i64 to !llvm.ptr", "!llvm.ptr")
    e.raw(f"llvm.store volatile {e.number(1, 'f32')}, {null} : f32, !llvm.ptr")
    e.store(e.number(0, "f32"), buffers["result"], [0, 0])


def hang(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
    place = e.pointer(buffers["result"])
    with e.loop(group, e.index(1 << 60)):
        e.raw(f"llvm.store volatile {e.number(1, 'f32')}, {place} : f32, !llvm.ptr")


def wrong(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
    e.store(e.number(7, "f32"), buffers["result"], [group, 0])


def unknown(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
    del buffers, group
    e.raw("bogus.operation")


def tried(*fakes: Candidate) -> Measured:
    good = candidates_for(HOST.features, PROBLEM)
    found = measure(PROBLEM, HOST, candidates=[*good, *fakes], effort=QUICK)
    assert {candidate.label for candidate in good} == set(found.times)
    return found


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (crash, "crashed"),
        (hang, "more than"),
        (wrong, "wrong"),
        (unknown, "does not compile"),
    ],
)
def test_one_bad_candidate_is_dropped(body: Body, reason: str) -> None:
    found = tried(fake("bad", body))
    assert set(found.dropped) == {"bad"}
    assert reason in found.dropped["bad"]


def test_several_bad_ones_are_dropped() -> None:
    found = tried(fake("first", wrong), fake("second", crash), fake("third", crash))
    assert set(found.dropped) == {"first", "second", "third"}


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_every_engine_of_this_machine_is_right(precision: str) -> None:
    problem = dataclasses.replace(PROBLEM, precision=precision)
    good = candidates_for(HOST.features, problem)
    if not good:
        pytest.skip(f"no engine does {precision} here")
    found = measure(problem, HOST, effort=QUICK)
    assert found.dropped == {}
    assert set(found.times) == {candidate.label for candidate in good}


@pytest.mark.parametrize(
    "problem",
    [
        Problem("bf16", 19, 96, 104, 48, 50),
        Problem("int8", 5, 96, 40, INPUTS, 50),
        Problem("int4-weights", 19, 80, 40),
    ],
    ids=lambda problem: problem.spelled(),
)
def test_zeros_and_codes_are_right_too(problem: Problem) -> None:
    good = candidates_for(HOST.features, problem)
    if not good:
        pytest.skip(f"no engine does {problem.precision} here")
    found = measure(problem, HOST, effort=QUICK)
    assert found.dropped == {}
    assert set(found.times) == {candidate.label for candidate in good}
    ways = {packing_of(label, problem) for label in found.times}
    assert (GATHERED in ways) == (problem.zeros is not None and problem.panel == INPUTS)
    assert any(way.startswith(SPARSE) for way in ways if way) == (problem.zeros is not None)


def test_nothing_is_said_where_every_candidate_is_bad() -> None:
    found = measure(PROBLEM, HOST, candidates=[fake("bad", crash)], effort=QUICK)
    assert found.times == {}


def test_tuning_extends_the_users_table() -> None:
    notes = tuning.tune([PROBLEM], HOST, lambda _: None, effort=QUICK)
    assert notes == []
    table, _ = read_table(tuning.user_table())
    assert LINALG in table.of(cpu_key())[PROBLEM]
    assert "f32 48x40" in tuning.choices_for(HOST)[0]


def test_a_table_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "folder.json"
    notes = tuning.extend_table(missing, [PROBLEM], HOST, lambda _: None, effort=QUICK)
    assert len(notes) == 1


class Clock:
    """Time that passes only in calls."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def call(self, *seconds: float) -> Callable[[], None]:
        """A call that takes these times in turn, the last one for ever."""
        left = list(seconds)

        def one() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return one


def test_medians_are_of_calls() -> None:
    clock = Clock()
    calls = {"base": clock.call(1e-3), "other": clock.call(2e-3)}
    rounds, discarded = rounds_of(calls, rounds=4, most=9, drift=0.01, clock=clock)
    assert discarded == 0
    assert [{k: round(v) for k, v in found.items()} for found in rounds] == [
        {"base": 1000, "other": 2000}
    ] * 4


def test_drift_discards_a_round() -> None:
    clock = Clock()
    slower = [1e-3 * 1.02**n for n in range(400)]
    calls = {"base": clock.call(*slower), "other": clock.call(1e-3)}
    rounds, discarded = rounds_of(calls, rounds=4, most=9, drift=0.01, clock=clock)
    assert (rounds, discarded) == ([], 9)
