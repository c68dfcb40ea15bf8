"""The process in which one contestant builds or runs: JSON lines in, JSON lines out.

Started by :mod:`common.processes` as ``python -m common.worker NAME`` in the contestant's
environment. Requests are ``{"op": ..., ...}``; each gets exactly one answer, ``{"ok": true,
...}`` or ``{"ok": false, "error": ...}``.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from peer import all_peers

from .protocol import Array, ModelSpec, Peer, Runner

__all__ = ["Worker", "main"]


class Worker:
    """Answers the requests for one contestant."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._runner: Runner | None = None
        self._inputs: tuple[Array, Array] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request; an unknown ``op`` is a KeyError."""
        handlers = {
            "hello": self._hello,
            "build": self._build,
            "prepare": self._prepare,
            "check": self._check,
            "run": self._run,
        }
        return handlers[request["op"]](request)

    def _hello(self, request: dict[str, Any]) -> dict[str, Any]:
        versions = {"python": platform.python_version()}
        for name in self._peer.packages:
            versions[name] = importlib.metadata.version(name)
        return {"versions": versions}

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        cache = Path(request["cache"])
        path = self._peer.build(_model(request), request["seq_len"], cache)
        return {"artifact": str(path)}

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        # Before the framework is imported, so that the threads it starts inherit it.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, request["cpus"])
        import numpy as np

        inputs = np.load(request["inputs"])
        self._inputs = (inputs["input_ids"], inputs["attention_mask"])
        started = time.perf_counter()
        self._runner = self._peer.prepare(
            Path(request["artifact"]), _model(request), request["seq_len"], request["threads"]
        )
        return {"seconds": time.perf_counter() - started, "info": self._runner.info}

    def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        assert self._runner is not None
        samples = np.load(request["inputs"])
        found = []
        for ids, mask in zip(samples["input_ids"], samples["attention_mask"], strict=True):
            found.append([np.array(one, dtype=np.float32) for one in self._runner(ids, mask)])
        np.savez(request["outputs"], *map(np.stack, zip(*found, strict=True)))
        return {}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time ``n`` calls one by one, after ``warmup`` calls that are not kept."""
        assert self._runner is not None
        assert self._inputs is not None
        runner, (ids, mask) = self._runner, self._inputs
        for _ in range(request["warmup"]):
            runner(ids, mask)
        samples: list[float] = []
        gc.collect()
        gc.disable()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(request["n"]):
            started = time.perf_counter()
            runner(ids, mask)
            samples.append((time.perf_counter() - started) * 1e3)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        gc.enable()
        return {"samples_ms": samples, "wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3}


def _model(request: dict[str, Any]) -> ModelSpec:
    fields = dict(request["model"])
    fields["directory"] = Path(fields["directory"])
    return ModelSpec(**fields)


def _private_stdout() -> TextIO:
    """Keep standard output for the answers: whatever frameworks print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Serve until standard input ends."""
    # transformers would take our script kernels.py for the package of that name.
    sys.modules["kernels"] = None  # type: ignore[assignment]
    answers = _private_stdout()
    worker = Worker(all_peers()[sys.argv[1]])
    for line in sys.stdin:
        try:
            answer = {"ok": True, **worker.answer(json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
