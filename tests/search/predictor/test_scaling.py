"""Costs of one setting become those of another: what is scaled, and what is added."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from canao.compiler.kernels.executable import Kernel
from canao.search.predictor.predictor import LatencyPredictor, observations, workloads_of
from canao.search.predictor.scaling import ADDED, Scaling
from canao.search.predictor.transfer import origin_of
from canao.search.predictor.workload import TERMS, workload_of
from canao.search.program.derive import calls_of, program_of
from canao.search.program.groups import busiest_share, groups_of

from .devices import SETTING, Formula, drawn, measured


@lru_cache(maxsize=1)
def source() -> LatencyPredictor:
    return LatencyPredictor.fit(measured(drawn(220)[:36]))


@pytest.mark.parametrize("target", ["arm64-i8mm", "host"])
def test_dispatches_have_the_work_groups_of_their_kernels(target: str) -> None:
    seen = set()
    for architecture in drawn(220)[:12]:
        dispatches = program_of(architecture, target=target).dispatches
        for call, one in zip(calls_of(architecture, target), dispatches, strict=True):
            seen.add(one.kind)
            assert groups_of(one) == (call.workgroups if isinstance(call, Kernel) else 1), one
    assert {"product", "attention"} < seen


def test_the_busiest_thread_counts() -> None:
    assert [busiest_share(groups, 2) for groups in (1, 2, 5, 8)] == [1.0, 0.5, 0.6, 0.5]
    assert busiest_share(5, 1) == 1.0
    architecture = drawn(220)[0]
    one, two = (workload_of(architecture, SETTING.target, threads) for threads in (1, 2))
    assert not one.meetings
    assert sum(two.meetings.values()) > 0
    shared = 0
    for group, row in one.terms.items():
        pairs = dict(zip(TERMS, zip(row, two.terms[group], strict=True), strict=True))
        for name in ("launches", "held"):
            assert pairs[name][0] == pairs[name][1]
        whole, busiest = pairs["operations"]
        assert whole / 2 <= busiest * (1 + 1e-9) <= whole * (1 + 1e-9)
        shared += busiest < whole
    assert shared > 2


def test_what_threads_cost_is_found() -> None:
    records = measured(drawn(220)[:120], Formula(threads=2, launch=12.5), noise=0.003, seed=4)
    few, rest = records[:25], records[25:]
    adapted = source().adapt(few)
    gained = adapted.model.costs(), source().model.costs()
    launches = [costs["norm/f32"][TERMS.index("launches")] for costs in gained]
    meeting = dict(zip(ADDED, adapted.model.scaled.added, strict=True))["meeting"]  # type: ignore[union-attr]
    # 10 of 2000 microseconds more for each, shared or not.
    assert 0.003 < launches[0] - launches[1] + meeting < 0.008
    found = adapted.predict([one.architecture for one in rest])
    away = [
        abs(one.relative / record.typical - 1) for one, record in zip(found, rest, strict=True)
    ]
    assert np.mean(away) < 0.06


def test_no_measurement_moves_what_it_says_nothing_of() -> None:
    records = measured(drawn(220)[:8], Formula(threads=2), seed=1)
    workloads = workloads_of(records)
    relative, weights = observations(records)
    problem = Scaling.of(origin_of(source()), workloads)
    found = problem.fit(np.log(relative), weights, problem.looseness(np.log(relative), weights))
    assert (found.factors > 0).all()
    assert (found.added > 0).all()
    assert 0 <= found.kept <= 1
    unseen = [place for place, group in enumerate(problem.groups)
              if not any(group in one.terms for one in workloads)]  # fmt: skip
    launches = found.factors[:, TERMS.index("launches")]
    assert np.ptp(launches) < 1e-9
    for place in unseen:
        assert found.factors[place].min() > 0.1 * found.other


def test_doubt_is_a_covariance_which_all_have_the_device_in() -> None:
    workloads = [workload_of(one, SETTING.target, 2) for one in drawn(220)[:20]]
    doubt = Scaling.of(origin_of(source()), [*workloads, workloads[0]]).doubt()
    assert np.allclose(doubt, doubt.T)
    assert np.linalg.eigvalsh(doubt).min() > -1e-9
    assert doubt.min() > 0.25
    # The same again tells all, another less.
    assert doubt[0, -1] == pytest.approx(doubt[0, 0])
    correlated = doubt / np.sqrt(np.outer(np.diag(doubt), np.diag(doubt)))
    assert correlated[0, 1:-1].max() < 1 - 1e-6
