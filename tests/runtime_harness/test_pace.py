from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.runtime_harness import pace
from canao.runtime_harness.pace import observe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_pace_is_usual_only_when_five_are_known() -> None:
    for number in range(5):
        found = observe("a", 2.0, keep=True)
        assert found.usual_ms is None, number
        assert found.fault is None
    assert observe("a", 2.0, keep=False).usual_ms == 2.0
    assert observe("another", 2.0, keep=False).usual_ms is None


def test_what_is_not_kept_changes_nothing() -> None:
    for _ in range(9):
        observe("a", 2.0, keep=True)
    for _ in range(50):
        observe("a", 5.0, keep=False)
    assert observe("a", 2.0, keep=False).usual_ms == 2.0


@pytest.mark.parametrize(
    ("now", "word"), [(2.0, None), (2.015, None), (2.05, "slower"), (1.9, "faster")]
)
def test_a_pace_far_from_the_usual_is_a_fault(now: float, word: str | None) -> None:
    for value in (1.99, 2.0, 2.01, 2.0, 2.02):
        observe("a", value, keep=True)
    fault = observe("a", now, keep=False).fault
    assert (fault is None) if word is None else (fault is not None and word in fault)


def test_the_last_ones_count() -> None:
    for value in [9.0] * 60 + [2.0] * 51:
        observe("a", value, keep=True)
    assert observe("a", 2.0, keep=False).usual_ms == 2.0


@given(content=st.binary(max_size=200))
def test_any_file_is_read(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("pace") / "a.jsonl"
    file.write_bytes(content + b'\nnull\n"x"\n-1.0\nInfinity\nNaN\n1e999\n3.0\n')
    assert pace._read(file)[-1] == 3.0
    assert all(value > 0 for value in pace._read(file))


def test_a_cache_that_cannot_be_used_is_an_empty_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("CANAO_CACHE_DIR", str(blocked))
    assert observe("a", 2.0, keep=True).usual_ms is None
