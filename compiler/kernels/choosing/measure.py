"""Timing the candidates of one product on this machine, in a process that may die.

All kernels of a product are one module, so that the compiler starts once; a candidate that does
not compile, crashes, hangs or is wrong is left out, and only that one.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ....errors import CompileError
from ....targets import Target
from ...quantization.precisions import WEIGHT_BITS
from ..trial import build
from .candidates import Candidate, candidates_for
from .linalg import linalg_program
from .problem import Numbers, Problem, numbers_for
from .process import EXPECTED, WRONG, Effort, Entry, functions_of, run_plan
from .runner import summary

__all__ = ["Effort", "Measured", "measure"]

# In a model the weights of the other layers pass by between two uses of one: copies of a weight
# take turns, so that together they do not fit into a core's second cache.
_COLD_BYTES = 6 << 20
_MOST_COPIES = 48
_FEWEST_ROUNDS = 3


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
        np.save(folder / EXPECTED, numbers.expected)
        planned = _compiled(folder, problem, target, candidates, effort, dropped)
        for entry, candidate in planned:
            _write_arrays(folder, entry, candidate, numbers)
        remaining = [entry for entry, _ in planned]
        while remaining:
            rounds, discarded, lost = run_plan(folder, remaining, effort)
            dropped.update(lost)
            culprits = [label for label, why in lost.items() if why != WRONG]
            if culprits and "" not in lost:
                remaining = [e for e in remaining if e["label"] not in lost]
                continue
            dropped.pop("", None)
            times = summary(rounds) if len(rounds) >= _FEWEST_ROUNDS else {}
            return Measured(problem, times, dropped, rounds, discarded)
    return Measured(problem, {}, dropped)


def _compiled(
    folder: Path,
    problem: Problem,
    target: Target,
    candidates: Sequence[Candidate],
    effort: Effort,
    dropped: dict[str, str],
) -> list[tuple[Entry, Candidate]]:
    """The plan's entry of each candidate that compiles: together, or else one by one."""
    kernels = [candidate for candidate in candidates if candidate.kernel]
    groups = [kernels] if kernels else []
    groups += [[candidate] for candidate in candidates if not candidate.kernel]
    planned: dict[str, tuple[Entry, Candidate]] = {}
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
            entry: Entry = {"label": candidate.label, "module": path.name, "copies": copies}
            if candidate.kernel:
                entry |= {"functions": [f"kernel_{i}"], "weights": candidate.weights}
            else:
                entry |= {"functions": [f"linalg_{n}" for n in range(copies)]}
                entry |= {"weights": None, "copies": 1}
            planned[candidate.label] = (entry, candidate)
    return [planned[c.label] for c in candidates if c.label in planned]


def _text(problem: Problem, group: Sequence[Candidate], copies: int) -> str:
    kernels = [candidate.steps for candidate in group if candidate.kernel]
    return functions_of(kernels) if kernels else linalg_program(problem, copies)


def _copies(problem: Problem, candidate: Candidate) -> int:
    bits = WEIGHT_BITS.get(problem.precision, {"int8": 8, "bf16": 16}.get(problem.precision, 32))
    weights = problem.depth * problem.outputs * problem.kept // 100
    found = math.ceil(_COLD_BYTES / max(1, weights * bits // 8))
    # IREE's own product is one function a copy.
    return min(found, _MOST_COPIES if candidate.kernel else 8)


def _write_arrays(folder: Path, entry: Entry, candidate: Candidate, numbers: Numbers) -> None:
    if candidate.kernel is None:
        from safetensors.numpy import save_file

        weights = {f"w{i}": numbers.weights for i in range(len(entry["functions"]))}
        entry["parameters"] = f"{candidate.label}.safetensors"
        save_file(weights, folder / entry["parameters"])
    arrays = candidate.arguments(numbers)
    entry["expected"] = EXPECTED
    entry["arrays"] = [f"{candidate.label}-{i}.npy" for i in range(len(arrays))]
    for name, array in zip(entry["arrays"], arrays, strict=True):
        np.save(folder / name, array)
