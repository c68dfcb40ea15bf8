"""The command line: names, JSON keys, exit codes, one clear sentence for each wrong call."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CANAO = Path(sys.executable).parent / "canao"
INT8 = ["compile", "minilm", "--target", "host", "--precision", "int8", "-o", "x"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CANAO), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def data(*arguments: str | Path) -> dict[str, Any]:
    """What a command prints with ``--json``: one object on standard output, nothing else."""
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def refused(code: int, *arguments: str | Path, **environment: str) -> str:
    """The one sentence on standard error of a call that fails with ``code``."""
    result = run(*arguments, **environment)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("canao: ")
    return lines[0]


def test_targets_and_devices() -> None:
    names = [target["name"] for target in data("targets")["targets"]]
    assert names[:4] == ["host", "arm64", "arm64-i8mm", "vulkan-llvmpipe"]
    found = {device["name"]: device for device in data("devices")["devices"]}
    assert set(found) >= {"local", "vulkan", "qemu"}
    assert found["local"]["available"]
    assert found["qemu"]["emulated"]


def test_patterns_prints_the_pipeline() -> None:
    listed = data("patterns", "--target", "vulkan-mali")["patterns"]
    assert [p["name"] for p in listed] == [
        "canao.strip_checks",
        "canao.strip_copies",
        "canao.linear_of_addmm",
        "canao.cut_hidden",
        "canao.gather_lines",
        "canao.fuse_qkv",
        "canao.split_heads",
        "canao.decompose_attention",
        "canao.quantize_embeddings",
        "canao.sparse_linear",
        "canao.quantize_linear",
        "canao.narrow_linear",
        "canao.bind_parameters",
        "canao.narrow_integers",
        "canao.single_queue",
        "canao.byte_storage",
    ]


def test_compile_inspect_verify_bench_profile(model_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.canao"
    report = data(
        "compile", model_directory, "--target", "host", "--target", "vulkan-adreno",
        "--seq-len", "8,16", "-o", out,
    )  # fmt: skip
    assert set(report) >= {
        "bundle", "targets", "seconds", "bytes", "dispatches", "patterns", "numerics",
    }  # fmt: skip
    assert set(report["dispatches"]) == {
        "host/8", "host/16", "vulkan-adreno/8", "vulkan-adreno/16",
    }  # fmt: skip
    assert report["patterns"]["canao.fuse_qkv"] == 8
    assert report["numerics"]["host"]["ok"] is True
    assert report["numerics"]["vulkan-adreno"] is None
    # A zip file's own headers and its padding come on top.
    assert 0 < report["bytes"] <= out.stat().st_size

    seen = data("inspect", out)
    assert seen["bytes"] == report["bytes"]
    assert seen["manifest"]["precision"] == "f32"
    assert seen["dispatches"] == report["dispatches"]
    assert seen["numerics"]["vulkan-adreno"]["verified"] is False

    checked = data("verify", out, "--device", "local")
    assert checked["ok"] is True
    assert checked["max_abs_err"] >= 0
    assert checked["cosine"] > 0.9999

    timing = data("bench", out, "--device", "local", "--seq-len", "8", "--threads", "2")
    assert set(timing) >= {
        "median_ms", "p90_ms", "samples_ms", "stable", "device", "target", "threads", "seq_len",
        "emulated", "peak_bytes", "numerics_ok",
    }  # fmt: skip
    assert (timing["target"], timing["seq_len"], timing["threads"]) == ("host", 8, 2)
    assert timing["numerics_ok"] is True
    assert timing["emulated"] is False

    rows = data("profile", out, "--device", "local")["rows"]
    assert set(rows[0]) >= {"name", "layer", "kind", "calls", "ms", "share"}
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert any("encoder.layer.0" in row["layer"] for row in rows)


def test_the_same_input_gives_the_same_bytes(model_directory: Path, tmp_path: Path) -> None:
    for name, seed in (("a.canao", "1"), ("b.canao", "2")):
        # Nothing shared: another cache, another order of hashing, another working directory.
        elsewhere = tmp_path / seed
        elsewhere.mkdir()
        subprocess.run(
            [CANAO, "compile", model_directory, "--target", "host", "--target", "vulkan-mali",
             "--seq-len", "8", "-o", tmp_path / name],
            check=True, capture_output=True, cwd=elsewhere,
            env={**os.environ, "CANAO_CACHE_DIR": str(elsewhere), "PYTHONHASHSEED": seed},
        )  # fmt: skip
    assert (tmp_path / "a.canao").read_bytes() == (tmp_path / "b.canao").read_bytes()


def test_fusion_none_and_dropped_patterns_change_the_dispatches(
    model_directory: Path, tmp_path: Path
) -> None:
    def dispatches(*options: str) -> int:
        report = data("compile", model_directory, "--target", "host", "--seq-len", "8",
                      "-o", tmp_path / "b", *options)  # fmt: skip
        assert report["numerics"]["host"]["ok"]
        return int(report["dispatches"]["host/8"])

    auto = dispatches()
    assert dispatches("--drop-pattern", "canao.fuse_qkv") != auto
    assert dispatches("--fusion", "none") != auto


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile", "minilm", "--target", "toaster", "-o", "x"], "arm64"),
        (["compile", "no/such/model", "--target", "host", "-o", "x"], "no/such/model"),
        (["compile", "minilm", "--target", "host", "--head", "poetry", "-o", "x"], "poetry"),
        (["compile", "minilm", "--target", "host", "--seq-len", "9999", "-o", "x"], "512"),
        (["compile", "minilm", "--target", "host", "--seq-len", "a", "-o", "x"], "--seq-len"),
        (["compile", "minilm", "--target", "host", "-o", "/no/such/place/x"], "/no/such/place"),
        (["compile", "minilm", "--target", "host", "--drop-pattern", "p", "-o", "x"], "'p'"),
        (["compile", "minilm", "--target", "host", "--precision", "f16", "-o", "x"], "f16"),
        ([*INT8, "--calibration", "no-file"], "no-file"),
        ([*INT8, "--calibration", os.devnull], "empty"),
        (["inspect", "no-bundle"], "no-bundle"),
        (["verify", "no-bundle", "--device", "local"], "no-bundle"),
        (["devices", "--fetch", "moon"], "moon"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [str(CANAO), *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device_and_a_foreign_module_are_refused(sample_bundle: Path) -> None:
    assert "local" in refused(2, "bench", sample_bundle, "--device", "toaster")
    refused(2, "bench", sample_bundle, "--device", "adb")
    refused(2, "verify", sample_bundle, "--device", "qemu")


def test_unverified_is_refused_on_request(model_directory: Path, tmp_path: Path) -> None:
    text = refused(
        4, "compile", model_directory, "--target", "vulkan-mali", "--seq-len", "8",
        "--require-verified", "-o", tmp_path / "out",
    )  # fmt: skip
    assert "vulkan-mali" in text
    assert not (tmp_path / "out").exists()


def test_a_tampered_bundle_is_refused(sample_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sample_bundle, copy)
    weights = copy / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "weights.safetensors" in refused(2, "bench", copy, "--device", "local")


def test_interrupting_leaves_nothing_half_written(model_directory: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [str(CANAO), "compile", str(model_directory), "--target", "host", "--target", "arm64",
         "--seq-len", "8,16,24,32", "-o", str(folder / "bundle")],
        stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CANAO_CACHE_DIR": str(tmp_path / "c")},
        # A test run in the background ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "c" / "modules").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # until the compiler is at work
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert list(folder.iterdir()) == []
    assert [p.name for p in (tmp_path / "c").iterdir() if p.name.startswith("canao-bundle")] == []


def test_a_full_disk_leaves_the_old_bundle(model_directory: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the kernel refuses the write alike."""
    out = tmp_path / "bundle.canao"
    data("compile", model_directory, "--target", "host", "--seq-len", "8", "-o", out)
    before = out.read_bytes()
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); "
        f"sys.argv = ['canao', 'compile', {str(model_directory)!r}, '--target', 'host', "
        f"'--seq-len', '8', '-o', {str(out)!r}]; from canao.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("demo", "targets", "devices", "compile", "inspect", "verify", "bench",
                    "profile", "patterns"):  # fmt: skip
        assert command in text
        assert run(command, "--help").returncode == 0
    assert run("tune").returncode == 2
