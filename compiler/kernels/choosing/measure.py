"""Timing the candidates of one product on this machine, in a process that may die.

All kernels of a product are one module, so that the compiler starts once; a candidate that does
not compile, crashes, hangs or is wrong is left out, and only that one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import CompileError
from ....targets import Target
from ..trial import build
from .candidates import Candidate, candidates_for, linalg_program
from .problem import Numbers, Problem, numbers_for
from .runner import summary

__all__ = ["Effort", "Measured", "measure"]

# In a model the weights of the other layers pass by between two uses of one: copies of a weight
# take turns, so that together they do not fit into a core's second cache.
_COLD_BYTES = 6 << 20
_MOST_COPIES = 48
_FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to try: rounds to keep and to try, the drift allowed in one, seconds allowed
    for compiling and for running."""

    rounds: int = 9
    most_rounds: int = 45
    drift: float = 0.08
    compile_seconds: float = 120.0
    run_seconds: float = 60.0


@dataclass(frozen=True)
class Measured:
    """``times``: microseconds of a call by label, empty where the machine was too unsteady;
    ``dropped``: why a candidate has none; ``rounds``: what the medians are of."""

    problem: Problem
    times: dict[str, float]
    dropped: dict[str, str]
    rounds: list[dict[str, float]] = field(default_factory=list)
    discarded: int = 0


def measure(
    problem: Problem,
    target: Target,
    *,
    candidates: Sequence[Candidate] | None = None,
    effort: Effort | None = None,
) -> Measured:
    """Time every candidate for ``problem`` on this machine, for which ``target`` must be."""
    effort = effort or Effort()
    if candidates is None:
        candidates = candidates_for(target.features, problem)
    dropped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="canao-choose-") as name:
        folder = Path(name)
        numbers = numbers_for(problem)
        np.save(folder / "expected.npy", numbers.expected)
        planned = _compiled(folder, problem, target, candidates, effort, dropped)
        for entry, candidate in planned:
            _write_arrays(folder, entry, candidate, numbers)
        remaining = [entry for entry, _ in planned]
        while remaining:
            rounds, discarded, lost = _run(folder, remaining, effort)
            dropped.update(lost)
            culprits = [label for label, why in lost.items() if why != _WRONG]
            if culprits and "" not in lost:
                remaining = [e for e in remaining if e["label"] not in lost]
                continue
            dropped.pop("", None)
            times = summary(rounds) if len(rounds) >= _FEWEST_ROUNDS else {}
            return Measured(problem, times, dropped, rounds, discarded)
    return Measured(problem, {}, dropped)


_WRONG = "its numbers are wrong"
_Entry = dict[str, Any]


def _compiled(
    folder: Path,
    problem: Problem,
    target: Target,
    candidates: Sequence[Candidate],
    effort: Effort,
    dropped: dict[str, str],
) -> list[tuple[_Entry, Candidate]]:
    """The plan's entry of each candidate that compiles: together, or else one by one."""
    kernels = [candidate for candidate in candidates if candidate.kernel]
    groups = [kernels] if kernels else []
    groups += [[candidate] for candidate in candidates if not candidate.kernel]
    planned: dict[str, tuple[_Entry, Candidate]] = {}
    while groups:
        group = groups.pop(0)
        path = folder / f"{len(planned)}-{len(groups)}.vmfb"
        copies = _copies(problem, group[0])
        try:
            build(_text(problem, group, copies), target, path, timeout=effort.compile_seconds)
        except CompileError as error:
            if len(group) > 1:
                groups = [[candidate] for candidate in group] + groups
            else:
                dropped[group[0].label] = f"it does not compile: {error}"
            continue
        for i, candidate in enumerate(group):
            entry: _Entry = {"label": candidate.label, "module": path.name, "copies": copies}
            if candidate.kernel:
                entry |= {"functions": [f"kernel_{i}"], "weights": 1}
            else:
                entry |= {"functions": [f"linalg_{n}" for n in range(copies)]}
                entry |= {"weights": None, "copies": 1}
            planned[candidate.label] = (entry, candidate)
    return [planned[c.label] for c in candidates if c.label in planned]


def _text(problem: Problem, group: Sequence[Candidate], copies: int) -> str:
    declarations: dict[str, str] = {}
    functions = []
    for i, candidate in enumerate(group):
        kernel = candidate.kernel
        if kernel is None:
            return linalg_program(problem, copies)
        declarations[kernel.name] = kernel.declaration()
        names = [f"%in{n}" for n in range(len(kernel.inputs))]
        typed = zip(names, kernel.inputs, strict=True)
        arguments = ", ".join(f"{n}: {operand.tensor}" for n, operand in typed)
        (output,) = kernel.outputs
        functions.append(
            f"func.func @kernel_{i}({arguments}) -> {output.tensor} {{\n"
            f"%r = {kernel.call(names)}\nreturn %r : {output.tensor}\n}}\n"
        )
    return "".join((*declarations.values(), *functions))


def _copies(problem: Problem, candidate: Candidate) -> int:
    size = {"int8": 1, "bf16": 2}.get(problem.precision, 4)
    found = math.ceil(_COLD_BYTES / (problem.depth * problem.outputs * size))
    # IREE's own product is one function a copy.
    return min(found, _MOST_COPIES if candidate.kernel else 8)


def _write_arrays(folder: Path, entry: _Entry, candidate: Candidate, numbers: Numbers) -> None:
    if candidate.engine is None:
        from safetensors.numpy import save_file

        weights = {f"w{i}": numbers.weights for i in range(len(entry["functions"]))}
        entry["parameters"] = f"{candidate.label}.safetensors"
        save_file(weights, folder / entry["parameters"])
        arrays = [numbers.activations, numbers.bias]
    else:
        arrays = numbers.arguments(candidate.engine)
    entry["arrays"] = [f"{candidate.label}-{i}.npy" for i in range(len(arrays))]
    for name, array in zip(entry["arrays"], arrays, strict=True):
        np.save(folder / name, array)


def _run(
    folder: Path, entries: Sequence[_Entry], effort: Effort
) -> tuple[list[dict[str, float]], int, dict[str, str]]:
    """The rounds, how many were discarded, and why candidates were lost.

    A key "" in the last means that timing itself failed, of candidates that were right before.
    """
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    plan = {
        "candidates": list(entries),
        "rounds": effort.rounds,
        "most_rounds": effort.most_rounds,
        "drift": effort.drift,
        "parent": os.getpid(),
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    death = _child(folder, effort.run_seconds)
    trying, lost = "", {}
    rounds: list[dict[str, float]] = []
    discarded = 0
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            said = json.loads(line)
        except ValueError:  # the process died while it wrote
            break
        trying = said.get("trying", trying)
        if said.get("ok") is False:
            lost[said["right"]] = _WRONG
        rounds = said.get("rounds", rounds)
        discarded = said.get("discarded", discarded)
    if death and not rounds:
        lost[trying] = death
    return rounds, discarded, lost


def _child(folder: Path, seconds: float) -> str:
    """Run the process; how it died, or the empty string."""
    command = [sys.executable, "-P", "-m", f"{__package__}.runner", str(folder)]
    # No page of a freed result goes back to the system, or its next user would pay for it.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if os.path.isabs(entry)),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    }
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"it takes more than {seconds:g} s"
    finally:
        child.kill()
        child.wait()
    if code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it failed with exit code {code}" if code else ""
