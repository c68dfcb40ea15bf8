"""The cache stays within its limit, and loses nothing that somebody uses."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from canao.errors import InputError
from canao.leases import Lease, Leases, mark_used
from canao.pruning import cache_limit, prune_cache

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's root, empty."""
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def entry(folder: Path, *, age: float, size: int = 100) -> Path:
    folder.mkdir(parents=True)
    (folder / "content").write_bytes(bytes(size))
    stamp = time.time() - age
    os.utime(folder, (stamp, stamp))
    return folder


def test_what_was_used_least_recently_goes_first(root: Path) -> None:
    old = entry(root / "modules" / "old", age=300)
    used = entry(root / "modules" / "used", age=400)
    bundle = entry(root / "bundles" / "bert-1", age=500)
    record = root / "bundles" / "bert-1.numerics.json"
    record.write_bytes(bytes(10))
    demo = entry(root / "demo" / "key", age=200)
    mark_used(used)
    assert prune_cache(410) == 0
    assert prune_cache(300) == 110
    assert not bundle.exists()
    assert not record.exists()
    assert prune_cache(299) == 100
    assert not old.exists()
    assert prune_cache(0) == 100
    assert not demo.exists()
    assert used.exists()  # a moment ago
    assert not list(root.rglob(".*"))


def test_only_what_can_be_made_again_is_touched(root: Path) -> None:
    tools = entry(root / "iree-base-runtime-3.13.0-aarch64", age=DAY)
    benchmarks = entry(root / "benchmarks" / "models", age=DAY)
    outside = entry(root.parent / "outside", age=DAY)
    (root / "modules").mkdir()
    (root / "modules" / "link").symlink_to(outside)
    assert prune_cache(0) == 0
    assert tools.exists()
    assert benchmarks.exists()
    assert (outside / "content").exists()


def test_what_is_being_written_stays_and_what_was_never_finished_goes(root: Path) -> None:
    writing = entry(root / "modules" / ".new-1", age=3600)
    left = entry(root / "modules" / ".new-2", age=2 * DAY)
    young = entry(root / "modules" / "young", age=1)
    assert prune_cache(0) == 100
    assert writing.exists()
    assert young.exists()
    assert not left.exists()


def test_what_is_held_stays(root: Path) -> None:
    held = entry(root / "modules" / "held", age=300)
    free = entry(root / "modules" / "free", age=200)
    with Lease(held):
        assert prune_cache(0) == 100
        assert held.exists()
        assert not free.exists()
    assert prune_cache(0) == 100
    assert not held.exists()


def test_what_another_process_holds_stays_until_it_ends(root: Path) -> None:
    held = entry(root / "modules" / "held", age=300)
    code = (
        "import pathlib, sys; from canao.leases import Lease; "
        "lease = Lease(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert prune_cache(0) == 0
        assert (held / "content").exists()
    finally:
        process.kill()
        process.communicate()
    assert prune_cache(0) == 100


def test_leases_go_with_the_last_block(root: Path) -> None:
    one, two = (entry(root / "modules" / name, age=300) for name in ("one", "two"))
    leases = Leases()
    assert leases.hold(two)  # outside of any block: it is there, and is not held
    with leases.block():
        with leases.block():
            assert leases.hold(one)
        assert prune_cache(0) == 100
        assert one.exists()
        assert not two.exists()
        assert not leases.hold(two)
    assert prune_cache(0) == 100
    assert not one.exists()


def test_one_process_prunes_at_a_time(root: Path) -> None:
    old = entry(root / "modules" / "old", age=300)
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert prune_cache(0) == 0
    assert old.exists()
    os.close(descriptor)
    assert prune_cache(0) == 100


def test_many_at_once_free_no_more_than_they_must(root: Path) -> None:
    for number in range(20):
        entry(root / "modules" / str(number), age=300 + number)
    code = "from canao.pruning import prune_cache; print(prune_cache(1000))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    freed = sum(int(process.communicate()[0]) for process in processes)
    assert freed == 1000
    assert {path.name for path in (root / "modules").iterdir()} == set(map(str, range(10)))


def test_the_limit_is_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANAO_CACHE_LIMIT", raising=False)
    assert cache_limit() == 4_000_000_000
    monkeypatch.setenv("CANAO_CACHE_LIMIT", "0.5")
    assert cache_limit() == 500_000_000
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("CANAO_CACHE_LIMIT", wrong)
        with pytest.raises(InputError, match=f"CANAO_CACHE_LIMIT must be .* not '{wrong}'"):
            cache_limit()
