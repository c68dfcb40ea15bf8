"""Running one kernel on this machine with NumPy in and out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import iree.runtime as runtime
import numpy as np

from canao import targets
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.trial import build, program

__all__ = ["load_kernel", "run_kernel"]

Call = Callable[[Sequence[np.ndarray[Any, Any]]], list[Any]]


def load_kernel(kernel: Kernel) -> Call:
    """Compile ``kernel`` for the host; what it returns calls it, any number of times."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "kernel.vmfb"
        build(program(kernel), targets.get("host"), module)
        text = module.read_bytes()
    config = runtime.Config("local-sync")
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, text))
    main = context.modules.module["main"]

    def call(arguments: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
        found = main(*arguments)
        results = found if isinstance(found, (list, tuple)) else [found]
        return [np.array(result.to_host()) for result in results]

    return call


def run_kernel(kernel: Kernel, arguments: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
    """Compile ``kernel`` for the host, call it once, return its outputs."""
    return load_kernel(kernel)(arguments)
