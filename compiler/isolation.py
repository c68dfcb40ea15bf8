"""Compiling in a process of its own, with a time-out and a memory limit.

A compiler can crash, loop or eat the machine; a candidate that does must cost its own process
and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from .. import errors
from ..errors import CanaoError, CompileError
from .lowering import one_line
from .request import LoweringRequest, LoweringResult

__all__ = ["Children", "lower_isolated"]

# What an allocator, the loader and the interpreter say where there is no more memory.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "out of memory",
    "failed to map segment",
    "cannot allocate memory",
    "memoryerror",
)


class Children:
    """The compiling processes of one build, so that they can all be stopped at once.

    Ctrl-C reaches the main thread only, while the threads that wait for a child do not notice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def stop(self) -> None:
        """Kill what runs; whoever starts another one from now on gets `CompileError`."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                _signal_group(child)

    @contextlib.contextmanager
    def _started(self, command: list[str], stderr: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A child that is running inside the block and dead after it."""
        with self._lock, stderr.open("ab") as file:
            if self._stopped:
                raise CompileError("Compiling was stopped.")
            # A session of its own: killing the group also ends what the compiler started.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
                start_new_session=True,
            )
            self._running.add(child)
        try:
            yield child
        finally:
            with self._lock:
                _signal_group(child)
                self._running.discard(child)
                child.wait()


def lower_isolated(
    request: LoweringRequest,
    output: Path,
    *,
    timeout: float | None = None,
    memory_limit: int | None = None,
    children: Children | None = None,
) -> tuple[LoweringResult, int]:
    """`lower` in a child process; returns its result and the child's peak memory in bytes.

    ``timeout`` is in seconds, ``memory_limit`` in bytes of address space; ``children`` lets
    another thread stop it. Raises what `lower` raises, and `CompileError` where the child
    crashed or went beyond a limit.
    """
    with tempfile.TemporaryDirectory(prefix="canao-compile-") as folder:
        directory = Path(folder)
        envelope = {
            "request": request.to_json(),
            "memory_limit": memory_limit,
            "parent": os.getpid(),
        }
        (directory / "request.json").write_text(json.dumps(envelope), encoding="utf-8")
        code = _run_child(directory, request, timeout, children or Children())
        answer = directory / "result.json"
        if not answer.is_file():
            printed = (directory / "stderr.txt").read_text(encoding="utf-8", errors="replace")
            raise CompileError(_explain_death(code, printed, request, memory_limit))
        result = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in result:
            raise _told(result["error"], request, memory_limit)
        shutil.move(directory / "module.vmfb", output)
        return LoweringResult.from_json(result["ok"]), int(result["peak_bytes"])


def _run_child(
    directory: Path, request: LoweringRequest, timeout: float | None, children: Children
) -> int:
    # -P: nothing is imported from the current directory, which is anybody's.
    command = [sys.executable, "-P", "-m", "canao.compiler.worker", str(directory)]
    with children._started(command, directory / "stderr.txt") as child:
        try:
            return child.wait(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise CompileError(
                f"Compiling for {request.target.name} took more than {timeout:g} s and was "
                "stopped: give it more time (timeout=) or a smaller model."
            ) from error


def _import_path() -> list[str]:
    """Where this process finds modules, for a child that must find the same ones.

    Relative entries (the current directory) are left out; a current directory that is an
    explicit entry comes last, so that no file in it passes for another module.
    """
    here = os.getcwd()
    entries = [entry for entry in dict.fromkeys(sys.path) if os.path.isabs(entry)]
    return sorted(entries, key=lambda entry: os.path.normpath(entry) == here)


def _signal_group(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is None:  # not reaped, so the number is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _told(error: dict[str, str], request: LoweringRequest, memory_limit: int | None) -> CanaoError:
    kind, message = error["kind"], error["message"]
    if kind == "MemoryError" or (memory_limit and _is_memory(message)):
        return CompileError(_memory_sentence(request, memory_limit))
    raised: CanaoError = getattr(errors, kind, CompileError)(message)
    return raised


def _is_memory(text: str) -> bool:
    return any(words in text.lower() for words in _OUT_OF_MEMORY)


def _memory_sentence(request: LoweringRequest, memory_limit: int | None) -> str:
    if memory_limit:
        return (
            f"Compiling for {request.target.name} needed more than the memory limit of "
            f"{_size(memory_limit)}: raise it (memory_limit=) or take a smaller model."
        )
    return f"Compiling for {request.target.name} ran out of memory: take a smaller model."


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _explain_death(
    code: int, stderr: str, request: LoweringRequest, memory_limit: int | None
) -> str:
    if _is_memory(stderr):
        return _memory_sentence(request, memory_limit)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if memory_limit:
        cause += f", under a memory limit of {_size(memory_limit)}"
    where = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
    reason = one_line(where) or "it gave no reason"
    return f"The compiler died ({cause}) on {request.target.name}: {reason}"
