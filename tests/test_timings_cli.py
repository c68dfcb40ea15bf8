"""``canao bench`` with stores, cores and comparisons, and ``canao timings``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canao.runtime_harness.timing_store import TimingStore

from .runtime_harness import tiny
from .test_cli import data, refused, run

BENCH_KEYS = {
    "median_ms", "p90_ms", "samples_ms", "stable", "device", "target", "threads", "seq_len",
    "emulated", "peak_bytes", "numerics_ok", "interval", "reason", "protocol", "environment",
    "relative", "relative_interval", "cores", "fingerprint",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of the same tiny model."""
    folder = tmp_path_factory.mktemp("bundles")
    return tuple(tiny.write_encoder(folder / name, ["host"]).path for name in ("one", "other"))


def test_a_comparison_goes_to_a_store_and_out_again(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle, other = bundles
    store = tmp_path / "timings.db"
    quick = ("--seq-len", "8", "--rounds", "2", "--repetitions", "10")
    core = min(os.sched_getaffinity(0))
    found = data(
        "bench", bundle, "--compare", other, "--cores", str(core), "--store", store, *quick
    )
    assert found.keys() >= BENCH_KEYS
    assert found["cores"] == [core]
    assert found["rounds"] == 2
    compared = found["compare"]
    assert compared.keys() == {
        "bundle", "ratio", "interval", "stable", "reason", "measurement",
    }  # fmt: skip
    assert compared["bundle"] == str(other)
    assert compared["interval"][0] <= compared["ratio"] <= compared["interval"][1]
    assert compared["measurement"].keys() >= BENCH_KEYS

    shown = data("timings", "show", store, "--device", "local")["timings"]
    assert [row["measurement"]["samples_ms"] for row in shown] == [
        found["samples_ms"], compared["measurement"]["samples_ms"],
    ]  # fmt: skip
    assert shown[0]["measurement"]["dispatches"]
    assert shown[0]["architecture"] == {"name": "tiny"}
    out = tmp_path / "timings.jsonl"
    assert data("timings", "export", store, "-o", out) == {"path": str(out), "timings": 2}
    again = tmp_path / "again.db"
    assert data("timings", "import", again, out)["added"] == 2
    assert list(TimingStore(again)) == list(TimingStore(store))

    told = run("timings", "show", store)
    assert told.returncode == 0
    assert "local" in told.stdout
    assert "holds no emulated timings" in refused(2, "timings", "show", store, "--emulated")
    assert "protocol 99" in refused(2, "timings", "show", store, "--protocol", "99")
    assert "of phone" in refused(2, "timings", "show", store, "--device", "phone")


def test_bench_tells_a_person_what_it_found(bundles: tuple[Path, Path]) -> None:
    told = run("bench", bundles[0], "--compare", bundles[1], "--rounds", "1")
    assert told.returncode == 0, told.stderr
    assert "times as fast as" in told.stdout
    assert "median" in told.stdout
    assert "of the reference" in told.stdout


def test_wrong_measuring_calls_are_one_sentence_and_exit_code_2(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = bundles[0]
    junk = tmp_path / "junk.db"
    junk.write_text("not a database, but some text that is long enough for one " * 20)
    assert "--cores" in refused(2, "bench", bundle, "--cores", "a")
    assert "no core 4096" in refused(2, "bench", bundle, "--cores", "4096")
    assert "rounds" in refused(2, "bench", bundle, "--rounds", "0")
    assert "nowhere" in refused(2, "bench", bundle, "--compare", "nowhere")
    assert "nowhere" in refused(2, "bench", bundle, "--reference", "nowhere")
    # Told before anything is measured, by a device that is not even here.
    missing = ("bench", bundle, "--device", "toaster", "--store")
    assert "not even an SQLite file" in refused(2, *missing, junk)
    assert "not even an SQLite file" in refused(2, "timings", "show", junk)
    assert "no timing store" in refused(2, "timings", "export", "none.db", "-o", "x.jsonl")
    assert "cannot be read" in refused(2, "timings", "import", tmp_path / "t.db", "none.jsonl")
