from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from canao.errors import DeviceError, MissingDeviceError
from canao.runtime_harness import exit_stop, tools
from canao.runtime_harness.tools import error_line, run_tool, tool_directory


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_tools_are_those_of_this_interpreter() -> None:
    directory = tool_directory()
    assert Path(sys.prefix) in directory.parents
    for name in ("iree-run-module", "iree-benchmark-module", "iree-profile"):
        assert os.access(directory / name, os.X_OK)


def test_without_the_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDeviceError, match="iree-base-runtime"):
        tool_directory()


def test_what_a_tool_prints_is_returned(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); sys.stderr.write('warned'); print('x' * 300000)"
    found = run_tool(python(code), what="work", cwd=tmp_path, env={"PATH": ""})
    assert found.stdout.startswith(str(tmp_path))
    assert found.stdout.count("x") >= 300000
    assert found.stderr == "warned"


def test_peak_memory_is_the_tools_own() -> None:
    ballast = bytearray(200_000_000)
    code = "b = bytearray(50_000_000); import time; time.sleep(0.3)"
    peak = run_tool(python(code), what="work").peak_bytes
    assert peak is not None
    assert 50_000_000 < peak < len(ballast)
    # More than this process ever had, which other tests decide: then the kernel tells exactly.
    own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = max(2 * len(ballast), own_peak + 50_000_000)
    assert (run_tool(python(f"b = bytearray({size})"), what="work").peak_bytes or 0) > size


def test_the_peak_of_a_tool_that_ends_at_once_is_seen() -> None:
    ballast = bytearray(200_000_000)
    for size in (20_000_000, 60_000_000):
        peak = run_tool(python(f"bytearray({size})"), what="work").peak_bytes
        assert peak is not None
        assert size < peak < size + 40_000_000 < len(ballast)


def test_where_tracing_is_forbidden_peaks_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_stop, "_ptrace", lambda *_: None)
    ballast = bytearray(200_000_000)
    code = "b = bytearray(50_000_000); import time; time.sleep(0.3)"
    assert 50_000_000 < (run_tool(python(code), what="work").peak_bytes or 0) < len(ballast)


def test_signals_reach_a_tool_and_it_may_be_stopped() -> None:
    code = (
        "import os, signal, subprocess\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard', flush=True))\n"
        "signal.signal(signal.SIGCONT, lambda *_: print('goes on', flush=True))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "subprocess.Popen(['sh', '-c', f'sleep 0.3; kill -CONT {os.getpid()}'])\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print('ends')"
    )
    began = time.monotonic()
    assert run_tool(python(code), what="work").stdout.split("\n")[:3] == [
        "heard",
        "goes on",
        "ends",
    ]
    assert time.monotonic() - began > 0.3
    with pytest.raises(DeviceError, match="SIGSEGV"):
        run_tool(python("import os; os.kill(os.getpid(), 11)"), what="work")


def test_a_stopped_tool_that_is_out_of_time_is_killed() -> None:
    with pytest.raises(DeviceError, match="did not end within"):
        run_tool(python("import os; os.kill(os.getpid(), 19)"), what="work", timeout=1.0)


def test_out_of_time_kills_the_tool_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    with pytest.raises(DeviceError, match=r"work did not end within 1 s"):
        run_tool(python(code), what="work", timeout=1.0)
    for pid in map(int, pids.read_text().split()):
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_an_interrupt_kills_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pid"
    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    pause = time.sleep

    def interrupt(seconds: float) -> None:
        if file.exists() and file.read_text():
            raise KeyboardInterrupt
        pause(seconds)

    monkeypatch.setattr(tools.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_tool(python(code), what="work")
    monkeypatch.undo()
    assert not is_running(int(file.read_text()))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "SIGILL.*features"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGKILL, "SIGKILL.*memory"),
        (signal.SIGUSR1, "SIGUSR1"),
    ],
)
def test_a_signal_is_told_plainly(number: signal.Signals, words: str) -> None:
    with pytest.raises(DeviceError, match=rf"work .*{words}"):
        run_tool(python(f"import os; os.kill(os.getpid(), {int(number)})"), what="work")


def test_a_failure_gives_the_line_that_matters() -> None:
    text = "c/x/invocation.c:103: INVALID_ARGUMENT; it was wrong; \\n[ 0] bytecode module@3:1 -"
    code = f"import sys; sys.stderr.write('EXEC @main\\n{text}'); sys.exit(1)"
    with pytest.raises(DeviceError, match=r"work failed: INVALID_ARGUMENT; it was wrong$"):
        run_tool(python(code), what="work")
    with pytest.raises(DeviceError, match="exit status 3"):
        run_tool(python("import sys; sys.exit(3)"), what="work")


def test_a_tool_that_is_not_there() -> None:
    with pytest.raises(MissingDeviceError, match=r"work: /no/such/tool cannot be started"):
        run_tool(["/no/such/tool"], what="work")


def test_the_line_of_an_error_is_short() -> None:
    assert error_line("") == ""
    assert error_line("one\n\ntwo  \n") == "two"
    assert error_line("Error creating it: c/a.c:1: NOT_FOUND; no x; y; ") == "NOT_FOUND; no x; y"
    assert len(error_line("z" * 5000)) <= 300
