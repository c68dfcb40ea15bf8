"""Fronts, and what they are made of."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from canao.search.study.pareto import front_of, hypervolume
from canao.search.study.specification import Specification
from tests.search.study.benches import Bench, begun, found, told


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
