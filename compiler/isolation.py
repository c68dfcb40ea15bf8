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
from pathlib import Path

from .. import errors
from ..errors import CanaoError, CompileError
from .lowering import LoweringRequest, LoweringResult

__all__ = ["lower_isolated"]


def lower_isolated(
    request: LoweringRequest,
    output: Path,
    *,
    timeout: float | None = None,
    memory_limit: int | None = None,
) -> tuple[LoweringResult, int]:
    """`lower` in a child process; returns its result and the child's peak memory in bytes.

    ``timeout`` is in seconds, ``memory_limit`` in bytes of address space. Raises what `lower`
    raises, and `CompileError` where the child crashed or went beyond a limit.
    """
    with tempfile.TemporaryDirectory(prefix="canao-compile-") as folder:
        directory = Path(folder)
        envelope = {"request": request.to_json(), "memory_limit": memory_limit}
        (directory / "request.json").write_text(json.dumps(envelope), encoding="utf-8")
        stderr = _run_child(directory, request, timeout)
        answer = directory / "result.json"
        if not answer.is_file():
            raise CompileError(_explain_death(stderr, request, memory_limit))
        result = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in result:
            kind = getattr(errors, result["error"]["kind"], CompileError)
            error: CanaoError = kind(result["error"]["message"])
            raise error
        shutil.move(directory / "module.vmfb", output)
        return LoweringResult.from_json(result["ok"]), int(result["peak_bytes"])


def _run_child(
    directory: Path, request: LoweringRequest, timeout: float | None
) -> tuple[int, str]:
    command = [sys.executable, "-m", "canao.compiler.worker", str(directory)]
    # A session of its own: killing the group also ends what the compiler started.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, stderr = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _kill(child)
        raise CompileError(
            f"Compiling for {request.target.name} took more than {timeout:g} s and was stopped: "
            "give it more time (timeout=) or a smaller model."
        ) from error
    except BaseException:
        _kill(child)
        raise
    return child.returncode, stderr


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def _explain_death(
    ended: tuple[int, str], request: LoweringRequest, memory_limit: int | None
) -> str:
    code, stderr = ended
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    out_of_memory = any("bad_alloc" in line or "out of memory" in line.lower() for line in lines)
    if memory_limit and (out_of_memory or code < 0):
        return (
            f"Compiling for {request.target.name} needed more than the memory limit of "
            f"{memory_limit / 2**30:.1f} GiB: raise it (memory_limit=) or take a smaller model."
        )
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    where = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
    return f"The compiler died ({cause}) on {request.target.name}: {where[:300]}"
