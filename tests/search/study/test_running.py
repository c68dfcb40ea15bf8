from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._grpc.server import make_server

from canao.errors import CanaoError, InputError
from canao.search.space.scalings import scalings
from canao.search.study.folder import StudyFolder
from canao.search.study.ledger import Ledger
from canao.search.study.liveness import Watch, Worker
from canao.search.study.running import looked_at, opened, run_trials
from canao.search.study.storage import open_storage
from canao.search.study.trial import Trial
from canao.search.study.work import trials_of
from tests.search.study.problems import faulty, judge, study, unreachable

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from canao.search.study.running import run_trials
from tests.search.study.problems import faulty, judge, study, unreachable
url = sys.argv[4] if len(sys.argv) > 4 else None
folder = study(Path(sys.argv[1]), int(sys.argv[2]), url, controller=sys.argv[3])
run_trials(folder, judge)
"""


def started(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def facts(trials: Mapping[int, Trial]) -> list[dict[str, Any]]:
    """All that must be the same in two runs."""
    changing = ("seconds", "overhead", "worker")
    return [
        {name: value for name, value in trial.to_json().items() if name not in changing}
        for trial in trials.values()
    ]


def wait_for(found: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []


def test_the_same_seed_gives_the_same_study(tmp_path: Path) -> None:
    first, again, other = (
        run_trials(study(tmp_path / name, 12, seed=seed), judge)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert facts(first) == facts(again)
    assert facts(first) != facts(other)
    assert list(first) == list(range(12))


def test_finished_studies_are_read_and_grow(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", 4)
    few = run_trials(folder, judge)
    whole = run_trials(study(tmp_path / "s", 9), judge)
    assert facts(whole)[:4] == facts(few)
    straight = run_trials(study(tmp_path / "t", 9), judge)
    assert facts(whole) == facts(straight)


@pytest.mark.parametrize(("controller", "kills"), [("rnn", (5,)), ("nsga2", (3, 11))])
def test_a_study_that_is_killed_goes_on_to_the_same_end(
    tmp_path: Path, controller: str, kills: tuple[int, ...]
) -> None:
    straight = run_trials(study(tmp_path / "whole", 24, controller=controller), judge)
    log = tmp_path / "log"
    environment = {
        "CANAO_TEST_LOG": str(log),
        "CANAO_TEST_SECONDS": "0.03",
        "OMP_NUM_THREADS": "1",
    }
    for reached in kills:
        process = started(tmp_path / "cut", 24, controller, **environment)
        wait_for(lambda reached=reached: len(lines(log)) >= reached)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = run_trials(study(tmp_path / "cut", 24, controller=controller), judge)
    assert facts(found) == facts(straight)
    # What was finished was not done again: only what was under way when it was killed.
    with opened(StudyFolder.open(tmp_path / "cut")) as ledger:
        attempts = ledger._attempts()
    assert len(attempts) <= 24 + 2
    done = Counter(attempt.user_attrs["canao:trial"] for attempt in attempts)
    assert sum(count - 1 for count in done.values()) <= 2


def test_two_processes_share_a_study_over_grpc(tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/trials.db")
    server = make_server(storage, "localhost", 0, ThreadPoolExecutor(4))
    port = server.add_insecure_port("localhost:0")
    server.start()
    log = tmp_path / "log"
    url = f"grpc://localhost:{port}"
    environment = {"CANAO_TEST_LOG": str(log), "CANAO_TEST_TOGETHER": "2"}
    try:
        # Each with a directory of its own, as on two machines.
        workers = [
            started(tmp_path / name, 16, "random", url, **environment) for name in ("one", "two")
        ]
        for worker in workers:
            assert worker.wait(120) == 0
        folder = study(tmp_path / "three", 16, url, controller="random")
        found = run_trials(folder, judge)
    finally:
        server.stop(None)
    assert list(found) == list(range(16))
    # Both took part, and neither did what the other had.
    evaluated = [line.split() for line in lines(log)]
    assert len({process for _, process in evaluated}) == 2
    assert len(evaluated) == sum(trial.same_as is None for trial in found.values())
    with pytest.raises(InputError, match=r"localhost:1 cannot be reached|must be grpc"):
        open_storage("grpc://localhost", tmp_path / "x")


def test_a_process_that_dies_has_its_trial_done_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANAO_TEST_FATAL", "128")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = study(tmp_path / "s", 5, controller="random", seed=4)
    seen: list[int] = []
    found = run_trials(folder, judge, workers=2, told=lambda done: seen.append(len(done)))
    fatal = [t for t in found.values() if t.architecture.hidden == 128 and t.same_as is None]
    assert len(found) == 5
    assert 0 < len(fatal) < 3
    for trial in fatal:
        assert trial.finding is None
        assert trial.outcome.reason == "its evaluation ended 3 processes"
    assert seen == sorted(seen)


@pytest.mark.parametrize(("maker", "code"), [(unreachable, 5), (faulty, 1)])
def test_a_worker_that_stops_for_a_reason_stops_the_study(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    maker: Any,
    code: int,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(CanaoError, match="with the error above") as caught:
        run_trials(study(tmp_path / "s", 5), maker, workers=2)
    assert caught.value.exit_code == code
    assert {5: "The device is gone.", 1: "a fault of ours"}[code] in capfd.readouterr().err


def test_claims(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", 3)
    with opened(folder) as ours, opened(folder) as theirs:
        mine, other = ours.claim(range(3)), theirs.claim(range(3))
        assert mine is not None
        assert other is not None
        assert (mine.number, other.number) == (0, 1)
        assert ours.claim([0, 1]) is None
        theirs.give_back(other)
        again = ours.claim([0, 1])
        assert again is not None
        assert again.number == 1
        assert ours.finish(again, {"found": 1}, (1.0, 2.0))
        assert not theirs.finish(other, {"found": 2}, None)
        assert theirs.finished() == {1: {"found": 1}}
    with opened(folder) as later:  # whose worker is gone loses what it had
        claim = later.claim([0])
        assert claim is not None
        assert claim.lost == 0


def test_once(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", 3)
    with opened(folder) as ours, opened(folder) as theirs:
        assert ours.once(-1, lambda: {"value": 1}) == {"value": 1}
        assert theirs.once(-1, lambda: {"value": 2}) == {"value": 1}
        with pytest.raises(ZeroDivisionError):
            ours.once(-2, lambda: {"value": 1 // 0})
        assert theirs.once(-2, lambda: {"value": 3}) == {"value": 3}


def test_workers_elsewhere_count_or_are_dead(tmp_path: Path) -> None:
    """Their locks cannot be seen: a count that moves is life."""
    storage = optuna.storages.InMemoryStorage()
    ledgers = []
    for name in ("here", "there"):
        worker = Worker(tmp_path / name)
        watch = Watch(tmp_path / name, patience=0.6)
        ledgers.append(Ledger(storage, "s", plan="p", worker=worker, watch=watch, beat=0.1))
    here, there = ledgers
    claim = there.claim([0])
    assert claim is not None
    with there.beating(claim):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert here.claim([0]) is None
            time.sleep(0.1)
    found = []
    wait_for(lambda: found.append(here.claim([0])) or found[-1] is not None)
    assert not there.finish(claim, {}, None)
    with pytest.raises(InputError, match="another study"):
        Ledger(storage, "s", plan="q", worker=here._worker, watch=here._watch)


@pytest.mark.parametrize("controller", ["nsga2", "random"])
def test_all_but_random_begin_with_scalings(tmp_path: Path, controller: str) -> None:
    folder = study(tmp_path / "s", 8, controller=controller)
    even = [folder.plan.space.build(values) for values in scalings(folder.plan.space)]
    tried = [trial.architecture for trial in run_trials(folder, judge).values()]
    assert (tried[: len(even)] == even) is (controller == "nsga2")


def test_without_locks_workers_count_or_are_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with Worker(tmp_path) as worker:
        watch = Watch(tmp_path, patience=0.1)
        for count in (1, 2):
            assert not watch.is_dead(0, worker.to_json(), count)
            time.sleep(0.15)
        assert watch.is_dead(0, worker.to_json(), 2)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("here", "is no URL"),
        ("grpc://:3", "must be grpc://HOST:PORT"),
        ("sqlite:////nowhere/at/all.db", "cannot be reached"),
        ("nonsense://x", "cannot be reached"),
        ("journal:///nowhere/at/all.log", "failed"),
    ],
)
def test_storages_that_are_not_there(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_storage(url, tmp_path / "own")


def test_devices_of_a_kind_share_a_study(tmp_path: Path) -> None:
    """On each machine its own: what is decided is the kind."""
    url = f"journal://{tmp_path}/shared.log"
    first = study(tmp_path / "one", 3, url, devices=("adb:A",))
    other = study(tmp_path / "two", 3, url, devices=("adb:B", "adb:C"))
    assert first.plan.digest == other.plan.digest
    assert first.plan.differences(other.plan) == []
    done = run_trials(first, judge)
    assert facts(run_trials(other, judge)) == facts(done)
    study(tmp_path / "one", 3, url, devices=("adb:D",))
    with pytest.raises(InputError, match="another kind of device"):
        study(tmp_path / "one", 3, url, devices=("local",))
    with pytest.raises(InputError, match="of one kind, not adb, local"):
        study(tmp_path / "x", 3, devices=("adb:A", "local"))


def test_waiting_for_what_others_make(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", 3)
    with opened(folder) as ours, opened(folder) as theirs:
        assert ours.awaited(-1, 0.1) is None
        claim = theirs.claim([-1])
        assert claim is not None
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ours.awaited, -1, 0.3)
            time.sleep(1.0)  # longer than it waits where nobody is at it
            assert not waiting.done()
            theirs.finish(claim, {"value": 1}, None)
            assert waiting.result() == {"value": 1}


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/trials.db"])
def test_who_only_looks_writes_nothing(tmp_path: Path, storage: str | None) -> None:
    url = storage and storage.format(tmp_path)
    folder = study(tmp_path / "s", 3, url)
    if url is None:
        assert looked_at(folder) == {}
    else:
        with pytest.raises(InputError, match="there is no such file"):
            looked_at(folder)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["s", "study.json", "workers"]
    done = run_trials(folder, judge)
    before = contents(tmp_path)
    assert facts(looked_at(folder)) == facts(done)
    assert contents(tmp_path) == before


def contents(place: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, with when it was written."""
    return {
        str(file): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in place.rglob("*")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcame": 1}, r"Trial 2 .* damaged \(a trial has no field 'outcame'\)"),
        ({"number": 3}, "Trial 2 of the study says that it is trial 3"),
        ({"number": "2"}, "number of a trial must be a whole number, not '2'"),
        ({"finding": {"latency_ms": []}}, "latency_ms of a finding must be a finite number"),
    ],
)
def test_damaged_trials(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """As a storage may hold them that does not find it itself."""
    folder = study(tmp_path / "s", 2)
    record = run_trials(folder, judge)[0].to_json()
    with opened(folder) as ledger:
        claim = ledger.claim([2])
        assert claim is not None
        ledger.finish(claim, {**record, "number": 2, **changes}, None)
        with pytest.raises(InputError, match=message):
            trials_of(ledger)


def test_study_directories(tmp_path: Path) -> None:
    study(tmp_path / "s", 3)
    with pytest.raises(InputError, match="another controller, seed"):
        study(tmp_path / "s", 3, controller="random", seed=2)
    with pytest.raises(InputError, match="its own file"):
        study(tmp_path / "s", 3, "sqlite:///x.db")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="is no study"):
        study(tmp_path / "full", 3)
    with pytest.raises(InputError, match="trials must be"):
        study(tmp_path / "t", 0)
    with pytest.raises(InputError, match="holds no study"):
        StudyFolder.open(tmp_path / "none")
