"""Running one kernel on this machine with NumPy in and out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import iree.runtime as runtime
import numpy as np

from canao import targets
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.trial import build, program

__all__ = ["run_kernel"]


def run_kernel(kernel: Kernel, arguments: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
    """Compile ``kernel`` for the host, call it once, return its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "kernel.vmfb"
        build(program(kernel), targets.get("host"), module)
        config = runtime.Config("local-sync")
        context = runtime.SystemContext(config=config)
        context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, module.read_bytes()))
        found = context.modules.module["main"](*arguments)
        results = found if isinstance(found, (list, tuple)) else [found]
        return [np.array(result.to_host()) for result in results]
