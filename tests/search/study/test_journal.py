"""A study's journal: what was written is what is read, or one sentence says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from canao.errors import InputError
from canao.search.study.journal import Journal, JournalFile
from canao.search.study.running import looked_at, opened, run_trials
from canao.search.study.work import trials_of
from tests.search.study.problems import judge, study

T = TypeVar("T")
LOGS: list[dict[str, Any]] = [
    *({"op_code": 8, "trial_id": number, "user_attr": {"x": "y" * number}} for number in range(9)),
    {"text": '\u00e4\n\\"}'},
]


@cache
def written() -> tuple[bytes, bytes]:
    """(journal, its end) of `LOGS`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "trials.log"
        for log in LOGS:
            JournalFile(file).append_logs([log])
        return file.read_bytes(), file.with_name("trials.log.end").read_bytes()


@contextmanager
def journal(data: bytes, end: bytes | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "trials.log"
        file.write_bytes(data)
        if end is not None:
            file.with_name("trials.log.end").write_bytes(end)
        yield file


def read(file: Path) -> list[dict[str, Any]]:
    return list(JournalFile(file, look=True).read_logs(0))


def attempted(run: Callable[[], T], words: str = "") -> T | None:
    """What it gives; None where it refuses, in one sentence."""
    try:
        return run()
    except InputError as error:
        said = str(error)
    assert words in said
    assert len(said.splitlines()) == 1
    return None


def told(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(file)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "trials.log"
    ours, theirs = JournalFile(file), JournalFile(file)
    ours.append_logs(LOGS[:3])
    assert list(theirs.read_logs(0)) == LOGS[:3]
    theirs.append_logs(LOGS[3:])
    assert list(ours.read_logs(2)) == LOGS[2:]
    assert list(ours.read_logs(0)) == LOGS
    assert list(ours.read_logs(len(LOGS))) == []
    assert file.read_bytes() == written()[0]


@given(st.data())
def test_a_line_that_is_missing_or_moved_is_found(data: st.DataObject) -> None:
    lines, end = written()[0].splitlines(keepends=True), written()[1]
    kept = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines) + 2))
    # The end apart, of which nobody can tell once the second file is gone too.
    start = kept == list(range(len(kept)))
    with journal(b"".join(lines[place] for place in kept), end) as file:
        if kept == list(range(len(lines))):
            assert read(file) == LOGS
        elif start:
            assert f"the last {len(lines) - len(kept)} are missing" in told(file)
            assert "delete trials.log.end to go on" in told(file)
            file.with_name("trials.log.end").unlink()
            assert read(file) == LOGS[: len(kept)]
            JournalFile(file).append_logs([{"a": 1}])
            assert read(file) == [*LOGS[: len(kept)], {"a": 1}]
        else:
            assert "restore trials.log and trials.log.end from a copy" in told(file)


@given(
    place=st.integers(0, len(written()[0])),
    cut=st.integers(0, 40),
    put=st.binary(max_size=40),
    end=st.none() | st.binary(max_size=40),
)
def test_bytes_of_anybody_are_refused_or_harmless(
    place: int, cut: int, put: bytes, end: bytes | None
) -> None:
    whole, right = written()
    damaged = whole[:place] + put + whole[place + cut :]
    with journal(damaged, right) as file:
        # A last line without an end is what a killed process leaves.
        assert attempted(lambda: read(file)) in (LOGS, None)
    for data, other in ((damaged, end), (put, right), (put, end), (whole, end)):
        with journal(data, other) as file:
            found = attempted(lambda file=file: read(file))
            if found is not None:
                JournalFile(file).append_logs([{"a": 1}])
                assert read(file) == [*found, {"a": 1}]


@given(st.integers(0, 10_000))
def test_a_kill_at_any_moment_of_writing(moment: int) -> None:
    """The lines come first, then the end: before, within and after each."""
    with journal(*written()) as file:
        JournalFile(file).append_logs([{"new": 1}, {"new": 2}])
        longer = file.read_bytes()
    whole, end = written()
    reached = len(whole) + moment % (len(longer) - len(whole) + 1)
    with journal(longer[:reached], end) as file:
        found = read(file)
        assert found[: len(LOGS)] == LOGS
        assert found[len(LOGS) :] == [{"new": 1}, {"new": 2}][: longer[:reached].count(b"\n") - 10]
        JournalFile(file).append_logs([{"after": 3}])
        assert read(file) == [*found, {"after": 3}]


def test_files_that_shrink_or_go_while_they_are_used(tmp_path: Path) -> None:
    file = tmp_path / "trials.log"
    at_work = JournalFile(file)
    at_work.append_logs(LOGS)
    assert list(at_work.read_logs(0)) == LOGS
    file.with_name("trials.log.end").unlink()
    file.write_bytes(b"".join(written()[0].splitlines(keepends=True)[:4]))
    with pytest.raises(InputError, match=r"Of 10 lines in .* the last 6 are missing"):
        list(at_work.read_logs(10))
    with pytest.raises(InputError, match="the last 6 are missing"):
        at_work.append_logs([{"a": 1}])
    file.unlink()
    with pytest.raises(InputError, match="the last 10 are missing"):
        list(at_work.read_logs(10))
    with journal(*written()) as other:
        other.unlink()
        assert "the last 10 are missing" in told(other)
        assert not other.exists()


PROGRAM = """
import sys
from pathlib import Path
from canao.search.study.journal import JournalFile
one = JournalFile(Path(sys.argv[1]))
for number in range(30):
    one.append_logs([{"name": sys.argv[2], "number": number}])
"""


def test_several_processes_append(tmp_path: Path) -> None:
    file = tmp_path / "trials.log"
    members = [subprocess.Popen([sys.executable, "-c", PROGRAM, file, name]) for name in "abc"]
    assert [member.wait() for member in members] == [0, 0, 0]
    found = read(file)
    for name in "abc":
        mine = [log["number"] for log in found if log["name"] == name]
        assert mine == list(range(30))
    assert len(found) == 90


def test_it_is_one_of_optunas_journals(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", 4)
    run_trials(folder, judge)
    copy = tmp_path / "copy.log"
    copy.write_bytes(folder.journal.read_bytes())
    ours = Journal(JournalFile(folder.journal))
    theirs = optuna.storages.JournalStorage(JournalFileBackend(str(copy)))
    pairs = [(one, theirs.get_all_studies()[0]._study_id) for one in (ours, theirs)]
    mine, other = (storage.get_all_trials(number) for storage, number in pairs)
    assert mine == other
    assert len(mine) == 4
    # What Optuna itself adds has no chain.
    theirs.create_new_study([optuna.study.StudyDirection.MINIMIZE], "other")
    assert f"Line {len(read(folder.journal)) + 1} of" in told(copy)


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_study_with_a_line_removed_is_not_done_again(tmp_path: Path, removed: int) -> None:
    folder = study(tmp_path / "s", 4)
    run_trials(folder, judge)
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
    for reader in (lambda: looked_at(folder), lambda: run_trials(folder, judge)):
        with pytest.raises(InputError, match=f"Line {removed + 1} of .*trials.log is damaged"):
            reader()
    folder.journal.write_bytes(b"hello\n" + b"".join(lines))
    with pytest.raises(InputError, match="Line 1 of"), opened(folder) as ledger:
        trials_of(ledger)


NAMES = st.sampled_from(
    ["study_id", "trial_id", "state", "values", "user_attr", "user_attrs", "directions", "x",
     "study_name", "datetime_start", "datetime_complete", "distributions", "params", "step"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(-1, 12) | JSON, st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_lines_that_are_no_changes(code: Any, fields: dict[str, Any], begun: bool) -> None:
    """Though whoever wrote them knew how lines are joined."""
    start = {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}
    with journal(b"", None) as file:
        JournalFile(file).append_logs([start] if begun else [])
        JournalFile(file).append_logs([{"worker_id": "w", **fields, "op_code": code}])
        attempted(lambda: Journal(JournalFile(file)), "is no change of a study")


def test_lines_that_are_json_alone(tmp_path: Path) -> None:
    for number, log in enumerate(({"a": 1}, {"op_code": 99})):
        file = tmp_path / f"{number}.log"
        JournalFile(file).append_logs([log])
        with pytest.raises(InputError, match=r"Line 1 of .* is no change of a study"):
            Journal(JournalFile(file))
        file.write_text(json.dumps(log) + "\n", encoding="utf-8")
        assert "Line 1 of" in told(file)
