"""The process in which modules are timed: opens them, and takes turns as it is told.

    python -m canao.runtime_harness.timing_worker

A request is a line of JSON on standard input; its answer is one on standard output. The process
ends when its input does.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import CanaoError, InputError
from .disturbance import Disturbance, read_cpu_times
from .turns import is_steady, refreshing_calls

if TYPE_CHECKING:
    from .engine import Engine, Program

__all__ = ["main"]

# Calls that are compared with as many before them; few where a call takes long.
_WINDOW, _SLOW_WINDOW, _SLOW_MS = 5, 2, 100.0
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 20.0
# A small model is warmed up by thousands of calls, of which the first tell enough.
_KEPT = 50


class _Worker:
    """Holds what is open; every method but those with an underscore is a request."""

    def __init__(self) -> None:
        self._programs: list[Program] = []
        self._engines: list[Engine] = []
        self._typical: list[float] = []
        self._watched: list[int] = []
        self._alone = False

    def pin(self, cores: list[int] | None, watched: list[int], alone: bool) -> dict[str, Any]:
        """Stay on some cores (None: on any), before any thread is started."""
        if cores is not None:
            os.sched_setaffinity(0, cores)
        self._watched, self._alone = watched, alone
        return {}

    def open(
        self, device: str, bundle: str, target: str, seq_len: int, threads: int, inputs: str
    ) -> dict[str, Any]:
        """Load a module and write its inputs (a file of ``numpy.savez``)."""
        import numpy as np

        from .bundle import Bundle
        from .devices import get
        from .tool_device import ToolDevice

        place, found = get(device), Bundle.open(bundle)
        assert isinstance(place, ToolDevice)
        engine = place.engine(found, target=target, threads=threads)
        program = engine.open(found.module(target, seq_len))
        with np.load(inputs, allow_pickle=False) as arrays:
            for number, into in enumerate(program.inputs):
                into[...] = arrays[f"arr_{number}"].view(into.dtype).reshape(into.shape)
        self._engines.append(engine)
        self._programs.append(program)
        self._typical.append(0.0)
        return {}

    def warm(self, number: int, least: int) -> dict[str, Any]:
        """Call until the calls are steady."""
        program, samples = self._programs[number], list[float]()
        started = time.monotonic()
        while True:
            samples.append(_timed(program))
            seconds = time.monotonic() - started
            window = _SLOW_WINDOW if samples[-1] > _SLOW_MS else _WINDOW
            steady = is_steady(samples, window) and seconds >= _LEAST_SECONDS
            if len(samples) >= max(least, 1) and (steady or seconds > _MOST_SECONDS):
                break
        self._typical[number] = statistics.median(samples[len(samples) // 2 :])
        return {
            "samples_ms": samples[:_KEPT],
            "calls": len(samples),
            "typical_ms": self._typical[number],
            "steady": steady,
        }

    def turn(self, number: int, calls: int) -> dict[str, Any]:
        """Time some calls, after one or two that are not timed."""
        program = self._programs[number]
        for _ in range(refreshing_calls(self._typical[number])):
            program.invoke(None)
        # Collecting garbage in the middle of a call would be no time of the model.
        gc.collect()
        gc.disable()
        before, used = read_cpu_times(self._watched), resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        samples = [_timed(program) for _ in range(calls)]
        wall = time.perf_counter() - started
        using, after = resource.getrusage(resource.RUSAGE_SELF), read_cpu_times(self._watched)
        gc.enable()
        known = before is not None and after is not None
        found = Disturbance(
            wall=wall,
            cpu=using.ru_utime + using.ru_stime - used.ru_utime - used.ru_stime,
            busy=after.busy - before.busy if before and after else 0.0,
            stolen=after.stolen - before.stolen if before and after else 0.0,
            switches=using.ru_nivcsw - used.ru_nivcsw,
            cores=len(self._watched) if known else 0,
            alone=self._alone,
        )
        return {"samples_ms": samples, "disturbance": found.sums()}

    def _close(self) -> None:
        for program in self._programs:
            program.close()
        for engine in self._engines:
            engine.close()
        self._programs, self._engines = [], []


def _timed(program: Program) -> float:
    started = time.perf_counter_ns()
    program.invoke(None)
    return (time.perf_counter_ns() - started) / 1e6


def main() -> int:
    """Serve until the input ends."""
    # What IREE or a driver prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = _Worker()
    for line in sys.stdin:
        request = json.loads(line)
        serve: Callable[..., dict[str, Any]] = getattr(worker, request.pop("request"))
        try:
            answer = serve(**request)
        except CanaoError as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
            answer = {"error": str(error), "kind": kind.__name__}
        except OSError as error:
            answer = {"error": f"the system refuses: {error}", "kind": InputError.__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    worker._close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
