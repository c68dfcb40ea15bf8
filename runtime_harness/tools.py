"""Running IREE's command-line tools: found for sure, killed in time, their errors told plainly."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError, MissingDeviceError
from .exit_stop import ExitStop, resident_peak

__all__ = ["ToolResult", "error_line", "run_tool", "signal_text", "tool_directory"]

# Pauses between looks at a running tool, in seconds: short at first, so that one that ends soon is
# not waited for, and longer the longer it runs, so as not to disturb what it measures.
_FIRST_POLL, _POLL_GROWTH, _LAST_POLL = 0.001, 1.25, 0.05
_MAX_LINE = 300
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
# How far the kernel's peak of a process may stray, in bytes: it counts pages per thread and late.
_PEAK_ERROR = 32 << 20
# "c/runtime/src/iree/vm/invocation.c:103: INVALID_ARGUMENT; what was wrong; where"
_STATUS = re.compile(r"\S+:\d+: (?P<status>[A-Z_]+; .*)")
_SIGNALS = {
    signal.SIGILL: "died of an illegal instruction (SIGILL): the module uses CPU instructions "
    "that this device does not have, so compile it for this device's features",
    signal.SIGSEGV: "crashed with a memory fault (SIGSEGV): the compiled module or the driver "
    "is at fault, so compile it again with other options or verify it on another device",
    signal.SIGBUS: "crashed with a bus error (SIGBUS): a file that it reads was cut short or "
    "the memory is exhausted",
    signal.SIGABRT: "aborted (SIGABRT)",
    signal.SIGKILL: "was killed (SIGKILL), most likely because memory ran out",
}


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool left: its text, and the peak resident memory of its process in bytes."""

    stdout: str
    stderr: str
    peak_bytes: int | None


def tool_directory() -> Path:
    """Return the directory of the tools that belong to this interpreter's IREE runtime.

    Raises MissingDeviceError if iree-base-runtime is not installed.
    """
    with contextlib.suppress(ModuleNotFoundError):
        spec = importlib.util.find_spec("iree._runtime_libs")
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    raise MissingDeviceError(
        "IREE's tools are not installed for this Python: pip install iree-base-runtime"
    )


def run_tool(
    command: Sequence[str],
    *,
    what: str,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> ToolResult:
    """Run a command to its end and return what it printed.

    ``what`` names the work in messages; ``timeout`` is in seconds (None: no limit). Whatever
    ends this call (the time-out, an interrupt) kills the command with all its children.

    Raises DeviceError if the command fails, dies of a signal or runs out of time, and
    MissingDeviceError if it cannot be started.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    own_peak = resident_peak("self")
    # Files, not pipes: a tool that prints much must neither block nor be read while it is timed.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        except OSError as error:
            raise MissingDeviceError(
                f"{what}: {command[0]} cannot be started ({error.strerror})"
            ) from error
        watch = ExitStop(process.pid)
        try:
            ended = _wait(process, watch, deadline, own_peak)
        finally:
            if process.returncode is None:
                _kill_group(process, watch)
        stdout.seek(0)
        stderr.seek(0)
        out, err = (file.read().decode(errors="replace") for file in (stdout, stderr))
    if ended is None:
        raise DeviceError(f"{what} did not end within {timeout:g} s and was stopped")
    code, peak = ended
    if code < 0:
        raise DeviceError(f"{what} {signal_text(-code)}")
    if code:
        raise DeviceError(f"{what} failed: {error_line(err) or f'exit status {code}'}")
    return ToolResult(stdout=out, stderr=err, peak_bytes=peak)


def error_line(stderr: str) -> str:
    """Return the one line of a tool's standard error that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in lines:
        found = _STATUS.search(line)
        if found:
            return _shorten(found["status"])
    return _shorten(lines[-1]) if lines else ""


def _shorten(line: str) -> str:
    line = line.rstrip("; ")
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 3] + "..."


def signal_text(number: int) -> str:
    """Return how a process that a signal ended did so, as the rest of a sentence."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"died of signal {number}"
    return _SIGNALS.get(known, f"died of signal {known.name}")


def _wait(
    process: subprocess.Popen[bytes], watch: ExitStop, deadline: float | None, own_peak: int
) -> tuple[int, int | None] | None:
    """Wait for the end; return exit code and peak resident bytes, or None if out of time."""
    pause, seen = _FIRST_POLL, 0
    if deadline is not None and time.monotonic() >= deadline:
        return None  # starting it took all the time there was
    while True:
        seen = max(seen, resident_peak(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid and os.WIFSTOPPED(status):
            watch.stopped(status)
            pause = _FIRST_POLL
        elif pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if watch.peak is not None:
                return process.returncode, watch.peak
            # The kernel's figure starts from the peak of this process, which the child shared
            # before it became the tool, so it counts only where it is clearly larger than that.
            final = usage.ru_maxrss * _MAXRSS_UNIT
            shared = max(own_peak, resident_peak("self")) + _PEAK_ERROR
            peak = max(final, seen) if final > shared or not seen else seen
            return process.returncode, peak or None
        remaining = pause if deadline is None else min(pause, deadline - time.monotonic())
        if remaining <= 0:
            return None
        time.sleep(remaining)
        pause = min(_POLL_GROWTH * pause, _LAST_POLL)


def _kill_group(process: subprocess.Popen[bytes], watch: ExitStop) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    while process.returncode is None:
        _, status = os.waitpid(process.pid, 0)
        if os.WIFSTOPPED(status):  # at its end, once more
            watch.stopped(status)
        else:
            process.returncode = os.waitstatus_to_exitcode(status)
