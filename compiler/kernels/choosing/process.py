"""Programs of several kernels, and the process that times them, which may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..executable import Kernel
from ..picking import Pick

__all__ = ["EXPECTED", "WRONG", "Effort", "Entry", "functions_of", "run_plan"]

WRONG = "its numbers are wrong"
EXPECTED = "expected.npy"

Entry = dict[str, Any]
"""What the process needs to know of a candidate: its ``label``; the ``module`` (a file) and its
``functions``, which take turns; ``parameters``, a file, for modules that read some; ``arrays``,
files of NumPy's, for the arguments; ``copies`` of argument ``weights``, which take turns;
``expected``, the file of what the first result must be, if that is checked."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to try: rounds to keep and to try, the drift allowed in one, seconds allowed
    for compiling and for running."""

    rounds: int = 9
    most_rounds: int = 45
    drift: float = 0.08
    compile_seconds: float = 120.0
    run_seconds: float = 60.0


def functions_of(candidates: Sequence[Kernel | Sequence[Kernel | Pick]]) -> str:
    """A module with a function ``kernel_0``, ``kernel_1``, ... that calls each kernel once.

    Several kernels run one after another: what one returns the next reads first, and scales of
    rows where it has such. Arguments are all other operands, in order.
    """
    declarations: dict[str, str] = {}
    functions = []
    for i, one in enumerate(candidates):
        arguments: list[str] = []
        lines: list[str] = []
        before: list[str] = []
        result = ""
        for number, kernel in enumerate([one] if isinstance(one, Kernel) else one):
            declarations[kernel.name] = kernel.declaration()
            names = []
            for place, operand in enumerate(kernel.inputs):
                if before and place == 0:
                    names.append(before[0])
                elif before[1:] and operand.name == "row_scales":
                    names.append(before[1])
                else:
                    names.append(f"%in{number}_{place}")
                    arguments.append(f"{names[-1]}: {operand.tensor}")
            count = len(kernel.outputs)
            left = f"%r{number}"
            before = [f"{left}#{n}" for n in range(count)] if count > 1 else [left]
            lines.append(f"{left}{f':{count}' if count > 1 else ''} = {kernel.call(names)}")
            result = ", ".join(operand.tensor for operand in kernel.outputs)
        functions.append(
            f"func.func @kernel_{i}({', '.join(arguments)}) -> ({result}) {{\n"
            + "\n".join((*lines, f"return {', '.join(before)} : {result}"))
            + "\n}\n"
        )
    return "".join((*declarations.values(), *functions))


def run_plan(
    folder: Path, entries: Sequence[Entry], effort: Effort
) -> tuple[list[dict[str, float]], int, dict[str, str]]:
    """The rounds, how many were discarded, and why candidates were lost.

    ``folder`` holds the files that the entries name; the first entry is the baseline. A key ""
    among the lost means that timing itself failed, of candidates that were right before.
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
            lost[said["right"]] = WRONG
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
