"""Running a contestant in a process of its own, and talking to it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from .paths import BENCHMARKS, PEERS_PYTHON
from .protocol import ModelSpec, Peer

__all__ = ["PeerError", "PeerProcess", "model_fields"]


class PeerError(Exception):
    """A contestant could not do what it was asked; the message says why, in a line."""


class PeerProcess:
    """A worker process for one contestant; a context manager that ends it.

    Raises PeerError when the environment is missing, when the worker reports an error, when
    it dies, and when it takes longer than a request's time limit.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        python = Path(sys.executable) if peer.environment == "main" else PEERS_PYTHON
        if not python.exists():
            raise PeerError(f"its environment is missing: {peer.hint}")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._process = subprocess.Popen(
            [str(python), "-m", "common.worker", peer.name],
            cwd=BENCHMARKS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        self._pending = b""

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def request(self, op: str, *, timeout: float, **fields: Any) -> dict[str, Any]:
        """Send one request and wait at most ``timeout`` seconds for its answer."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._obituary()) from None
        answer: dict[str, Any] = json.loads(self._line(op, timeout))
        if not answer.pop("ok"):
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, at once if it does not end by itself within 5 seconds."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _line(self, op: str, timeout: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._process.kill()
                    raise PeerError(f"{op} took more than {timeout:g} s")
                chunk = os.read(stdout.fileno(), 1 << 16)
                if not chunk:
                    raise PeerError(self._obituary())
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _obituary(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with code {code}: {lines[-1] if lines else 'no message'}"


def model_fields(model: ModelSpec) -> dict[str, Any]:
    """The model as the worker's requests carry it."""
    return {**asdict(model), "directory": str(model.directory)}


def _environment() -> dict[str, str]:
    environment = dict(os.environ, HF_HUB_OFFLINE="1", PYTHONPATH=str(BENCHMARKS))
    # How many threads a contestant uses is told in its request, by nothing else.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KMP_AFFINITY"):
        environment.pop(name, None)
    return environment
