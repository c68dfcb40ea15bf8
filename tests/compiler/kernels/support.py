"""Running one kernel with NumPy in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from canao import targets
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.trial import program
from canao.targets import Target

from .batch import Call, load

__all__ = ["load_kernel", "run_kernel"]

HOST = targets.get("host")


def load_kernel(kernel: Kernel, target: Target = HOST) -> Call:
    """Compile ``kernel`` for ``target``; what it returns calls it, any number of times."""
    return load(program(kernel), len(kernel.outputs), target)


def run_kernel(
    kernel: Kernel, arguments: Sequence[np.ndarray[Any, Any]]
) -> list[np.ndarray[Any, Any]]:
    """Compile ``kernel`` for the host, call it once, return its outputs."""
    return load_kernel(kernel)(arguments)
