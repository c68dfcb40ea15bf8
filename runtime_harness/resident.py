"""Timing in a process that stays: modules are loaded once and called again and again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import CanaoError, DeviceError
from .affinity import available_cores
from .disturbance import Disturbance, watched_cores
from .tools import error_line, signal_text
from .turns import Contestant, Turn, Warmup

__all__ = ["ResidentStopwatch"]

_ENDING_SECONDS = 10.0
_MODULE = "canao.runtime_harness.timing_worker"


class ResidentStopwatch:
    """Times calls in one process of its own, from inputs in place to outputs that can be read.

    ``device`` is one whose engine runs in a process of this machine. The process stays on
    ``cores`` (None: any). Each request may take ``timeout`` seconds. Raises DeviceError if the
    process crashes or runs out of time.
    """

    method = "calls in a process that stays, from inputs in place to outputs in place, wall-clock"

    def __init__(
        self,
        device: str,
        contestants: Sequence[Contestant],
        *,
        threads: int,
        cores: Sequence[int] | None,
        timeout: float | None,
    ) -> None:
        self._device, self._contestants, self._threads = device, contestants, threads
        self._cores, self._timeout = cores, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())

    def __enter__(self) -> ResidentStopwatch:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
        self._log.close()

    def start(self) -> None:
        """Start the process and load every module."""
        self.close()
        self._pending = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        on_cpu = all(item.module.kind == "cpu" for item in self._contestants)
        self._ask(
            "pin",
            cores=None if self._cores is None else list(self._cores),
            watched=list(watched_cores(self._cores or available_cores())),
            alone=on_cpu and self._threads == 1,
        )
        for contestant in self._contestants:
            self._open(contestant)

    def warm(self, number: int, least: int) -> Warmup:
        """Call until the calls are steady, and at least ``least`` times."""
        answer = self._ask("warm", number=number, least=least)
        return Warmup(**{**answer, "samples_ms": tuple(answer["samples_ms"])})

    def turn(self, number: int, calls: int) -> Turn:
        """Time so many calls."""
        answer = self._ask("turn", number=number, calls=calls)
        return Turn(
            samples_ms=tuple(answer["samples_ms"]),
            disturbance=Disturbance(**answer["disturbance"]),
        )

    def close(self) -> None:
        """End the process, by force if it does not end soon."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(_ENDING_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()

    def _open(self, contestant: Contestant) -> None:
        import numpy as np

        with tempfile.TemporaryDirectory(prefix="canao-") as scratch:
            inputs = Path(scratch, "inputs.npz")
            # As bytes: NumPy's files know no bfloat16.
            arrays = [
                np.frombuffer(contestant.inputs[spec.name].tobytes(), np.uint8)
                for spec in contestant.bundle.manifest.inputs
            ]
            np.savez(inputs, *arrays)
            self._ask(
                "open",
                device=self._device,
                bundle=str(contestant.bundle.path.resolve()),
                target=contestant.module.target,
                seq_len=contestant.module.seq_len,
                threads=self._threads,
                inputs=str(inputs),
            )

    def _ask(self, request: str, **fields: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        line = json.dumps({"request": request, **fields}).encode() + b"\n"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._read_line(process))
        except (BrokenPipeError, EOFError):
            raise DeviceError(self._obituary(process)) from None
        except BaseException:  # a time-out or an interrupt: the process is not asked again
            self._kill(process)
            raise
        if "error" in answer:
            kind: type[CanaoError] = getattr(errors, answer["kind"])
            raise kind(answer["error"])
        return answer

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not selector.select(left):
                    raise DeviceError(
                        f"timing on {self._device} did not end within {self._timeout:g} s and "
                        "was stopped"
                    )
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise EOFError
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _obituary(self, process: subprocess.Popen[bytes]) -> str:
        self._kill_if_stuck(process)
        code = process.returncode
        what = f"timing on {self._device}"
        if code < 0:
            return f"{what} {signal_text(-code)}"
        self._log.seek(0)
        said = error_line(self._log.read().decode(errors="replace"))
        return f"{what} failed: {said or f'exit status {code}'}"

    def _kill_if_stuck(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill(process)
