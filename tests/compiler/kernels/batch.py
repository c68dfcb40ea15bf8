"""Several kernels in one module, because a compilation costs more than what it compiles."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import iree.runtime as runtime
import numpy as np

from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.trial import build
from canao.runtime_harness import aarch64_runtime
from canao.targets import Target

from ...runtime_harness.tiny import needed

__all__ = ["ARM_COMMAND", "arm_tool", "batch_program", "run_batch", "run_batch_on_arm"]

_Array = np.ndarray[Any, Any]
Arguments = Sequence[_Array]

ARM_COMMAND = ("qemu-aarch64-static", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")


def batch_program(kernels: Sequence[Kernel]) -> str:
    """A module whose ``main`` takes all inputs and returns the first output of each kernel."""
    number = count()
    declarations: dict[str, str] = {}
    parameters, lines, results, types = [], [], [], []
    for place, kernel in enumerate(kernels):
        output, *others = kernel.outputs
        names = [f"%in{next(number)}" for _ in kernel.inputs]
        parameters += [f"{n}: {o.tensor}" for n, o in zip(names, kernel.inputs, strict=True)]
        declarations[kernel.name] = kernel.declaration()
        several = f":{1 + len(others)}" if others else ""
        lines.append(f"%r{place}{several} = {kernel.call(names)}")
        results.append(f"%r{place}#0" if others else f"%r{place}")
        types.append(output.tensor)
    returned = ", ".join(types)
    return (
        "".join(declarations.values())
        + f"func.func @main({', '.join(parameters)}) -> ({returned}) {{\n"
        + "\n".join(lines)
        + f"\nreturn {', '.join(results)} : {returned}\n}}\n"
    )


def run_batch(cases: Sequence[tuple[Kernel, Arguments]], target: Target) -> list[_Array]:
    """Compile for ``target``, which this machine can run; the first output of each kernel."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "batch.vmfb"
        build(batch_program([kernel for kernel, _ in cases]), target, module)
        text = module.read_bytes()
    config = runtime.Config("local-sync")
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, text))
    found = context.modules.module["main"](*(a for _, arguments in cases for a in arguments))
    results = found if isinstance(found, (list, tuple)) else [found]
    return [np.array(result.to_host()) for result in results]


def arm_tool(name: str) -> str:
    """One of IREE's tools for ARM; skips the test without emulation, fails it in CI."""
    needed("qemu")
    return str(aarch64_runtime.ensure() / name)


def run_batch_on_arm(cases: Sequence[tuple[Kernel, Arguments]], target: Target) -> list[_Array]:
    """The same under emulation, in one process."""
    tool = arm_tool("iree-run-module")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = folder / "batch.vmfb"
        build(batch_program([kernel for kernel, _ in cases]), target, module)
        flags = [f"--module={module}", "--function=main", "--device=local-sync"]
        arguments = [array for _, arrays in cases for array in arrays]
        for place, array in enumerate(arguments):
            np.save(folder / f"in{place}.npy", array)
            flags.append(f"--input=@{folder}/in{place}.npy")
        outputs = [folder / f"out{place}.npy" for place in range(len(cases))]
        flags += [f"--output=@{output}" for output in outputs]
        done = subprocess.run(
            [*ARM_COMMAND, tool, *flags], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return [np.load(output) for output in outputs]
