from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canao.errors import CanaoError, MissingDeviceError
from canao.runtime_harness import aarch64_runtime
from canao.runtime_harness.aarch64_runtime import ensure, find, main

TOOLS = ("iree-run-module", "iree-benchmark-module", "iree-cpuinfo")
Pip = Callable[..., list[list[str]]]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(aarch64_runtime.metadata, "version", lambda name: "1.2.3")
    return tmp_path / "cache"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    """Stands in for pip: writes a wheel with the given members, or fails."""

    def install(*members: str, fail: str = "", bad: bool = False) -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            if not fail:
                wheel = Path(command[command.index("--dest") + 1], "runtime-1.2.3.whl")
                if bad:
                    wheel.write_bytes(b"no zip file")
                else:
                    with zipfile.ZipFile(wheel, "w") as archive:
                        for member in members:
                            archive.writestr(member, "content")
            return subprocess.CompletedProcess(command, int(bool(fail)), "", fail)

        monkeypatch.setattr(aarch64_runtime.subprocess, "run", run)
        return commands

    return install


def whole() -> list[str]:
    return [
        *(f"iree/_runtime_libs/{name}" for name in TOOLS),
        "iree/_runtime_libs/_runtime.so",
        "iree/runtime/__init__.py",
        "iree_base_runtime.libs/libx.so",
        "../../escape",
    ]


def test_the_tools_are_fetched_once(cache: Path, pip: Pip, tmp_path: Path) -> None:
    commands = pip(*whole())
    assert find() is None
    tools = ensure()
    assert tools == find() == ensure()
    assert len(commands) == 1
    assert cache in tools.parents
    assert all((tools / name).stat().st_mode & 0o111 for name in TOOLS)
    files = {path.name for path in cache.rglob("*") if path.is_file()}
    assert files == {*TOOLS, "libx.so"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    command = commands[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-1] == "iree-base-runtime==1.2.3"
    assert {"--no-deps", "--only-binary=:all:", "manylinux_2_28_aarch64"} <= set(command)


def test_another_version_is_fetched_anew(
    cache: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip(*whole())
    first = ensure()
    monkeypatch.setattr(aarch64_runtime.metadata, "version", lambda name: "1.2.4")
    assert find() is None
    assert ensure() != first
    assert commands[1][-1].endswith("==1.2.4")


def test_what_somebody_left_incomplete_is_replaced(cache: Path, pip: Pip) -> None:
    pip(*whole())
    tools = ensure()
    (tools / "iree-cpuinfo").unlink()
    assert find() is None
    assert ensure() == tools
    assert (tools / "iree-cpuinfo").is_file()


def test_when_another_process_was_faster_its_tools_are_taken(cache: Path, pip: Pip) -> None:
    pip(*whole())
    tools = ensure()
    marked = tools / "iree-run-module"
    marked.write_text("theirs")
    tree = cache / "tree"
    (tree / "iree").mkdir(parents=True)
    aarch64_runtime._put(tree, tools.parent.parent)
    assert marked.read_text() == "theirs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fail": "ERROR: no route\nERROR: No matching distribution"}, "No matching distribution"),
        ({"bad": True}, "cannot be unpacked"),
    ],
)
def test_a_failure_leaves_nothing(
    cache: Path, pip: Pip, arguments: dict[str, Any], words: str
) -> None:
    pip(**arguments)
    with pytest.raises(CanaoError, match=words) as caught:
        ensure()
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_wheel_without_tools_is_told(cache: Path, pip: Pip) -> None:
    pip("iree/_runtime_libs/iree-other")
    with pytest.raises(CanaoError, match="does not hold"):
        ensure()


def test_without_the_runtime_there_is_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise aarch64_runtime.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(aarch64_runtime.metadata, "version", missing)
    assert find() is None
    with pytest.raises(MissingDeviceError, match="pip install iree-base-runtime"):
        ensure()


def test_a_cache_that_cannot_be_written(
    pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "file" / "cache"))
    pip(*whole())
    assert find() is None
    with pytest.raises(CanaoError, match="cannot be written"):
        ensure()


def test_as_a_program(cache: Path, pip: Pip, capsys: pytest.CaptureFixture[str]) -> None:
    pip(fail="offline")
    assert main() == 1
    assert capsys.readouterr().err.startswith("error: ")
    pip(*whole())
    assert main() == 0
    assert capsys.readouterr().out.strip() == str(find())
