"""The store of timings: nothing is lost, nothing is mixed, and every fault is one sentence."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.runtime_harness.device import DispatchTime
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.protocol import PROTOCOL
from canao.runtime_harness.timing_store import StoredTiming, TimingStore
from canao.runtime_harness.timing_store.database import SCHEMA

from .test_measurement import measurement_json, measurements

plain = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5)
objects = st.none() | st.dictionaries(st.text(max_size=5), plain | st.lists(plain, max_size=3))


def measured(**changes: Any) -> Measurement:
    value = {**measurement_json(), "protocol": PROTOCOL, **changes}
    return Measurement.from_json(value)


@given(measurements(), objects, objects)
def test_what_is_stored_comes_back_equal(
    measurement: Measurement, architecture: Any, recipe: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = TimingStore(Path(folder, "t.db"))
        row = store.add(measurement, architecture=architecture, recipe=recipe)
        assert list(store) == [row]
        assert (row.measurement, row.architecture, row.recipe) == (
            measurement, architecture, recipe,
        )  # fmt: skip
        assert StoredTiming.from_json(json.loads(json.dumps(row.to_json()))) == row


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 2)), max_size=5))
def test_a_query_gives_one_device_one_protocol_and_never_mixes_in_emulated_ones(
    drawn: list[tuple[str, bool, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = TimingStore(Path(folder, "t.db"))
        store.check()
        for fingerprint, emulated, protocol in drawn:
            store.add(
                measured(
                    device=f"device-{fingerprint}",
                    fingerprint=fingerprint,
                    emulated=emulated,
                    protocol=protocol,
                )
            )
        for fingerprint, emulated, protocol in {*drawn, ("a", True, 1)}:
            count = drawn.count((fingerprint, emulated, protocol))
            for name in (fingerprint, f"device-{fingerprint}"):
                options: Any = {"device": name, "emulated": emulated, "protocol": protocol}
                if not count:
                    with pytest.raises(InputError, match="holds no"):
                        store.query(**options)
                    continue
                found = [row.measurement for row in store.query(**options)]
                assert len(found) == count
                assert {(m.fingerprint, m.emulated, m.protocol) for m in found} == {
                    (fingerprint, emulated, protocol)
                }
            devices = {d for d, e, p in drawn if (e, p) == (emulated, protocol)}
            if len(devices) > 1:
                with pytest.raises(InputError, match="cannot be mixed"):
                    store.query(emulated=emulated, protocol=protocol)


def test_a_query_for_what_is_not_there_tells_what_is(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    store.check()
    with pytest.raises(InputError, match="but nothing"):
        store.query()
    store.add(measured(device="qemu", fingerprint="feed", emulated=True))
    store.add(measured(device="local", fingerprint="cafe", protocol=PROTOCOL + 1))
    with pytest.raises(InputError) as caught:
        store.query(device="phone")
    for words in (
        f"no real timings of phone by protocol {PROTOCOL}",
        f"1 of qemu (feed, emulated, protocol {PROTOCOL})",
        f"1 of local (cafe, protocol {PROTOCOL + 1})",
    ):
        assert words in str(caught.value)


def test_two_machines_of_one_name_are_two_devices(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    for fingerprint in ("cafe", "feed"):
        store.add(measured(device="local", fingerprint=fingerprint))
    with pytest.raises(InputError, match=r"cafe \(local\), feed \(local\)"):
        store.query(device="local")
    assert len(store.query(device="feed")) == 1


WRITER = """
import json, sys
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.timing_store import TimingStore
path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store, value = TimingStore(path), json.loads(sys.stdin.read())
for number in range(count):
    row = store.add(Measurement.from_json({**value, "model": f"{who} {number}"}))
    print(row.digest, flush=True)
"""


def writer(path: Path, who: str, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), who, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(measured().to_json()))
    process.stdin.close()
    process.stdin = None
    return process


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    processes = [writer(path, str(number), 12) for number in range(3)]
    written: set[str] = set()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        written.update(out.split())
    rows = list(TimingStore(path))
    assert len(written) == len(rows) == len(TimingStore(path)) == 36
    assert {row.digest for row in rows} == written
    for number in range(3):  # each one's rows are in its order
        names = [row.measurement.model for row in rows]
        own = [name for name in names if name.startswith(f"{number} ")]
        assert own == [f"{number} {index}" for index in range(12)]


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_killed_writer_loses_nothing_that_it_had_stored(after: int, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    process = writer(path, "killed", 100_000)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split()  # what it printed before it died
    process.wait()
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    whole = [digest for digest in told if len(digest) == 64]
    assert len(whole) >= after
    store = TimingStore(path)
    found = [row.digest for row in store]
    assert found[: len(whole)] == whole
    assert len(found) - len(whole) <= 1  # stored, but not told any more
    store.add(measured(model="the next"))
    assert len(store) == len(found) + 1


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_an_export_can_be_loaded(name: str, tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    rows = [
        store.add(
            measured(
                model=model,
                emulated=model == "b",
                dispatches=[{"name": "d", "ms": 0.5, "calls": 2}],
            ),
            architecture={"layers": 6},
        )
        for model in ("a", "b", "ü\u2028")
    ]
    assert rows[0].measurement.dispatches == (DispatchTime(name="d", ms=0.5, calls=2),)
    assert store.export(tmp_path / name) == 3
    data = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(data) if name.endswith("gz") else data).decode().splitlines()
    marks = [json.loads(line)["measurement"]["emulated"] for line in lines]
    assert marks == [False, True, False]
    store.export(tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == data
    other = TimingStore(tmp_path / "other.db")
    assert other.load(tmp_path / name) == 3
    assert other.load(tmp_path / name) == 0  # they are there
    assert list(other) == rows
    assert {path.name for path in tmp_path.iterdir()} >= {name}
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "line 2 is not JSON"),
        (b"[]", "line 2: a timing must be"),
        (b'{"schema": 1}', "line 2: a timing must be"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_bad_line_is_told_and_nothing_is_added(
    content: bytes, words: str, tmp_path: Path
) -> None:
    store = TimingStore(tmp_path / "t.db")
    store.add(measured())
    store.export(tmp_path / "good.jsonl")
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes((tmp_path / "good.jsonl").read_bytes() + content)
    other = TimingStore(tmp_path / "other.db")
    other.check()
    with pytest.raises(InputError, match=words):
        other.load(bad)
    assert len(other) == 0
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="cannot be read"):
        other.load(tmp_path / "bad.jsonl.gz")


@pytest.mark.parametrize(
    "change",
    [
        '"protocol": 1000000000000000000000000000000',
        f'"median_ms": 1{"0" * 400}',
        '"median_ms": -1.0',
        '"samples_ms": [-1.0]',
        '"seq_len": 0',
        '"environment": {"x": NaN}',
        '"environment": {"x": 1e999}',
        '"device": "\\ud800"',
    ],
)
def test_a_hostile_line_is_told(change: str, tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    store.add(measured())
    store.export(tmp_path / "good.jsonl")
    line = (tmp_path / "good.jsonl").read_text()
    # The last of equal keys counts.
    bad = line.rstrip().removesuffix("}}") + f", {change}}}}}\n"
    (tmp_path / "bad.jsonl").write_text(bad)
    with pytest.raises(InputError, match="line 1"):
        TimingStore(tmp_path / "other.db").load(tmp_path / "bad.jsonl")


@pytest.mark.parametrize("change", [{"schema": 9}, {"added": 5}, {"recipe": [1]}, {"extra": 1}])
def test_a_damaged_timing_is_refused(change: dict[str, Any]) -> None:
    row = StoredTiming(measurement=measured(), architecture=None, recipe=None, added="now")
    with pytest.raises(InputError):
        StoredTiming.from_json({**row.to_json(), **change})


def test_what_is_no_json_object_is_not_stored(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    for wrong in ({"x": object()}, {"x": float("nan")}, 7):
        with pytest.raises(InputError, match="recipe"):
            store.add(measured(), recipe=wrong)  # type: ignore[arg-type]
    assert not store.path.exists()


def uses(store: TimingStore, tmp_path: Path) -> list[Any]:
    return [
        lambda: store.add(measured()),
        store.query,
        store.check,
        lambda: len(store),
        lambda: store.export(tmp_path / "out.jsonl"),
    ]


def refused_everywhere(path: Path, words: str, tmp_path: Path) -> None:
    before = path.read_bytes()
    for use in uses(TimingStore(path), tmp_path):
        with pytest.raises(InputError, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to look like one " * 40)
    refused_everywhere(text, "not even an SQLite file", tmp_path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    refused_everywhere(other, "but not a timing store", tmp_path)
    with pytest.raises(InputError, match="is a directory"):
        TimingStore(tmp_path).add(measured())


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    TimingStore(path).add(measured())
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    refused_everywhere(path, f"schema {SCHEMA + 1}, .* none newer than {SCHEMA}: update", tmp_path)


def test_a_store_that_is_not_there_is_refused_where_it_is_read(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "none.db")
    for read in (store.query, lambda: list(store), lambda: len(store)):
        with pytest.raises(InputError, match="there is no timing store"):
            read()
    assert not store.path.exists()
    with pytest.raises(InputError, match="cannot be opened"):
        TimingStore(tmp_path / "no" / "such" / "t.db").add(measured())
    (tmp_path / "empty.db").touch()
    assert len(TimingStore(tmp_path / "empty.db")) == 0


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    store = TimingStore(path)
    for number in range(30):
        store.add(measured(model=f"model {number}"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    with pytest.raises(InputError, match=r"damaged|fails"):
        list(store)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"damaged|fails"):
        list(store)


@given(st.data())
def test_flipped_bits_are_never_taken_for_timings(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = TimingStore(Path(folder, "t.db"))
        rows = [store.add(measured(model=f"model {number}")) for number in range(3)]
        content = bytearray(store.path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        store.path.write_bytes(content)
        try:
            found = list(store)
        except InputError:
            return
        assert all(row in rows for row in found)


def test_a_changed_row_is_told(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    for statement in (
        "UPDATE timings SET samples_ms = '[2.0]'",
        "UPDATE timings SET measurement = 'junk'",
        "UPDATE timings SET recipe = '{\"a\": 1}'",
        "UPDATE timings SET median_ms = 0.5",
        "UPDATE timings SET stable = 1 - stable",
        "UPDATE timings SET seq_len = 7",
    ):
        store.add(measured())
        with sqlite3.connect(store.path) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(InputError, match="damaged"):
            store.query()
        store.path.unlink()


def test_an_emulated_row_made_real_is_told(tmp_path: Path) -> None:
    store = TimingStore(tmp_path / "t.db")
    store.add(measured(emulated=True))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE timings SET emulated = 0, device = 'phone'")
    connection.close()
    with pytest.raises(InputError, match="damaged"):
        store.query(device="phone")


READER = """
import os, sys
from canao.errors import InputError
from canao.runtime_harness.timing_store import TimingStore
if os.getuid() == 0:  # who may write everything
    os.setuid(65534)
store = TimingStore(sys.argv[1])
print(len(store), [row.measurement.device for row in store.query()])
for write in (store.check, lambda: store.add(next(iter(store)).measurement)):
    try:
        write()
    except InputError as error:
        print(error)
"""


def test_a_read_only_store_can_be_read_and_not_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "t.db"
        TimingStore(path).add(measured())
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        folder.chmod(0o555)
        before = path.read_bytes()
        done = subprocess.run(
            [sys.executable, "-c", READER, str(path)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        folder.chmod(0o755)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "1 ['local']"
        assert len(lines) == 3
        for line in lines[1:]:
            assert str(path) in line
            assert "may only be read" in line or "cannot be opened" in line
        assert path.read_bytes() == before


def test_a_store_in_use_for_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canao.runtime_harness.timing_store.database._BUSY_SECONDS", 0.05)
    store = TimingStore(tmp_path / "t.db")
    store.add(measured())
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="in use by another process"):
        store.add(measured())
    assert len(store) == 1  # reading goes on
    connection.execute("ROLLBACK")
    connection.close()
    store.add(measured(model="later"))
    assert len(store) == 2
