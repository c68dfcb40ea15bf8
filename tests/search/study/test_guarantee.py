"""What does not meet the specification is refused, and what would have to give is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from canao.search.study.guarantee import misses
from canao.search.study.specification import Specification
from tests.search.study.benches import Bench, begun, found, measured, told


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
