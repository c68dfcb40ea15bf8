"""A group of cases: compiled together, timed in turns, in one process that may die."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canao.compiler.kernels.choosing.process import Effort, Entry, functions_of, run_plan
from canao.compiler.kernels.trial import build
from canao.targets import Target

from .cases import Case

__all__ = ["timed"]


def timed(title: str, cases: Sequence[Case], target: Target, effort: Effort) -> dict[str, Any]:
    """The record of a group: each case and, by case, microseconds of a call in each round."""
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as name:
        folder = Path(name)
        build(functions_of([case.kernel for case in cases]), target, folder / "all.vmfb")
        entries = []
        for number, case in enumerate(cases):
            files = [f"{number}-{place}.npy" for place in range(len(case.arguments))]
            for file, array in zip(files, case.arguments, strict=True):
                np.save(folder / file, array)
            entry: Entry = {
                "label": case.name,
                "module": "all.vmfb",
                "functions": [f"kernel_{number}"],
                "arrays": files,
                "weights": case.weights,
                "copies": case.copies,
            }
            entries.append(entry)
        rounds, discarded, lost = run_plan(folder, entries, effort)
    return {
        "title": title,
        "discarded_rounds": discarded,
        "lost": lost,
        "cases": [_record(case) for case in cases],
        "rounds": {
            case.name: [float(f"{found[case.name]:.4g}") for found in rounds]
            for case in cases
            if rounds and case.name in rounds[0]
        },
    }


def _record(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "kind": case.kind,
        "engine": case.engine,
        "multiply_adds": case.multiply_adds,
        "near_bytes": int(case.near_bytes),
        "far_bytes": int(case.far_bytes),
    }
