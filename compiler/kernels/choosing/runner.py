"""The process that times candidates: it may crash, hang or be killed without harm.

    python -P -m canao.compiler.kernels.choosing.runner DIRECTORY

DIRECTORY holds plan.json (`Plan`) and the arrays that it names. The process appends lines of JSON
to log.jsonl: ``{"trying": label}``, ``{"right": label, "ok": bool}``, and at last
``{"rounds": [{label: microseconds}, ...], "discarded": count}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Calls", "main", "rounds_of"]

Calls = Mapping[str, Callable[[], object]]
"""One call of each candidate, by label."""

_PR_SET_PDEATHSIG = 1
_TURN_SECONDS = 1.5e-3
_FEWEST, _MOST = 3, 64


def main(directory: str) -> int:
    """Check every candidate's numbers, then time those that are right."""
    folder = Path(directory)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    _prepare(plan)
    session = _Session(folder)
    calls: dict[str, Callable[[], object]] = {}
    with (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1) as log:
        for candidate in plan["candidates"]:
            label = candidate["label"]
            log.write(json.dumps({"trying": label}) + "\n")
            one = session.load(candidate)
            found = session.result(one())
            good = (
                _is_right(found, folder / candidate["expected"])
                if "expected" in candidate
                else True
            )
            log.write(json.dumps({"right": label, "ok": good}) + "\n")
            if good:
                calls[label] = one
        log.write(json.dumps({"trying": ""}) + "\n")
        if calls:
            rounds, discarded = rounds_of(
                calls, rounds=plan["rounds"], most=plan["most_rounds"], drift=plan["drift"]
            )
            log.write(json.dumps({"rounds": rounds, "discarded": discarded}) + "\n")
    return 0


def _is_right(found: Any, file: Path) -> bool:
    """Whether a result is as right as f32 sums are."""
    expected = np.load(file)
    tolerance = 1e-4 * float(np.abs(expected).max())
    return found.shape == expected.shape and bool((np.abs(found - expected) <= tolerance).all())


def rounds_of(
    calls: Calls, *, rounds: int, most: int, drift: float, clock: Callable[[], float] | None = None
) -> tuple[list[dict[str, float]], int]:
    """Microseconds of one call in each round, and how many rounds were discarded.

    The first candidate is the baseline: it begins and ends each round, and a round in which its
    two times differ by more than ``drift`` (a fraction) says nothing. The others take turns in
    a new order each round. It ends with ``rounds`` good rounds or after ``most``.
    """
    clock = clock or time.perf_counter
    baseline, *others = calls
    counts = {label: _count(call, clock) for label, call in calls.items()}
    order = random.Random(0)
    good: list[dict[str, float]] = []
    tried = 0
    while len(good) < rounds and tried < most:
        tried += 1
        order.shuffle(others)
        first = _turn(calls[baseline], counts[baseline], clock)
        found = {label: _turn(calls[label], counts[label], clock) for label in others}
        last = _turn(calls[baseline], counts[baseline], clock)
        if abs(last - first) <= drift * min(first, last):
            good.append({baseline: (first + last) / 2, **found})
    return good, tried - len(good)


def _count(call: Callable[[], object], clock: Callable[[], float]) -> int:
    call()
    started = clock()
    call()
    took = max(clock() - started, 1e-7)
    return max(_FEWEST, min(_MOST, round(_TURN_SECONDS / took)))


def _turn(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    """The median of ``count`` calls, in microseconds, after one that is not kept."""
    call()
    times = []
    for _ in range(count):
        started = clock()
        call()
        times.append(clock() - started)
    return statistics.median(times) * 1e6


class _Session:
    """Loads modules and arrays once each."""

    def __init__(self, folder: Path) -> None:
        import iree.runtime as runtime

        self._runtime = runtime
        self._folder = folder
        self._config = runtime.Config("local-sync")
        self._contexts: dict[str, tuple[Any, Any]] = {}

    def load(self, candidate: Mapping[str, Any]) -> Callable[[], object]:
        """A call of the candidate: its functions and its copies of the weight in turn."""
        context, module = self._module(candidate["module"], candidate.get("parameters"))
        functions = [module.lookup_function(name) for name in candidate["functions"]]
        if None in functions:
            raise ValueError(f"no function {candidate['functions']}")
        arrays = [self._array(name) for name in candidate["arrays"]]
        lists = []
        for _ in range(candidate["copies"]):
            if candidate["weights"] is not None:
                arrays[candidate["weights"]] = self._array(
                    candidate["arrays"][candidate["weights"]]
                )
            inputs = self._runtime.VmVariantList(len(arrays))
            for array in arrays:
                inputs.push_ref(array._buffer_view)
            lists.append((inputs, list(arrays)))
        turns = cycle([(function, inputs) for inputs in lists for function in functions])
        variants, invoke = self._runtime.VmVariantList, context.vm_context.invoke

        def call() -> object:
            function, (inputs, _) = next(turns)
            outputs = variants(1)
            invoke(function, inputs, outputs)
            return outputs

        return call

    def result(self, outputs: Any) -> Any:
        """What a call returned, as NumPy has it."""
        view = outputs.get_as_object(0, self._runtime.HalBufferView)
        return np.asarray(
            self._runtime.DeviceArray(
                self._config.device, view, implicit_host_transfer=True
            ).to_host()
        )

    def _array(self, name: str) -> Any:
        return self._runtime.asdevicearray(self._config.device, np.load(self._folder / name))

    def _module(self, name: str, parameters: str | None) -> tuple[Any, Any]:
        if name not in self._contexts:
            runtime, instance = self._runtime, self._config.vm_instance
            context = runtime.SystemContext(config=self._config)
            if parameters:
                index = runtime.ParameterIndex()
                index.load(str(self._folder / parameters))
                provider = index.create_provider(scope="model")
                context.add_vm_module(runtime.create_io_parameters_module(instance, provider))
            data = (self._folder / name).read_bytes()
            module = runtime.VmModule.copy_buffer(instance, data)
            context.add_vm_module(module)
            self._contexts[name] = (context, module)
        return self._contexts[name]


def _prepare(plan: Mapping[str, Any]) -> None:
    """End with the parent, and stay on one core, the last: the first is the busiest."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if os.getppid() != plan["parent"]:
        os._exit(1)


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each candidate over the rounds."""
    return {
        label: statistics.median(found[label] for found in rounds)
        for label in (rounds[0] if rounds else ())
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
