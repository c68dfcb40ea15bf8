"""Running modules here or for ARM under emulation; several kernels in one of them, because a
compilation costs more than what it compiles."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
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

__all__ = [
    "ARM",
    "ARM_COMMAND",
    "PLACES",
    "Call",
    "arm_tool",
    "batch_program",
    "load",
    "outputs_of",
    "run_batch",
]

_Array = np.ndarray[Any, Any]
Arguments = Sequence[_Array]
Call = Callable[[Arguments], list[_Array]]

ARM_COMMAND = ("qemu-aarch64-static", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")
ARM = ("arm64", "arm64-i8mm")
PLACES = ("host", *ARM)
"""Targets for which kernels are compared with NumPy."""


def arm_tool(name: str) -> str:
    """One of IREE's tools for ARM; skips the test without emulation, fails it in CI."""
    needed("qemu")
    return str(aarch64_runtime.ensure() / name)


def load(text: str, results: int, target: Target) -> Call:
    """Compile a module; what it returns calls ``main``, which returns so many results.

    It runs here, or under emulation if the target is one of `ARM`.
    """
    on_arm = target.name in ARM
    tool = arm_tool("iree-run-module") if on_arm else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.vmfb"
        build(text, target, path)
        module = path.read_bytes()
    return _emulated(module, results, tool) if on_arm else _here(module)


def _here(module: bytes) -> Call:
    config = runtime.Config("local-sync")
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, module))
    main = context.modules.module["main"]

    def call(arguments: Arguments) -> list[_Array]:
        found = main(*arguments)
        results = found if isinstance(found, (list, tuple)) else [found]
        return [np.array(result.to_host()) for result in results]

    return call


def _emulated(module: bytes, results: int, tool: str) -> Call:
    """Every call is a process."""

    def call(arguments: Arguments) -> list[_Array]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "module.vmfb").write_bytes(module)
            flags = [f"--module={folder}/module.vmfb", "--function=main", "--device=local-sync"]
            for place, array in enumerate(arguments):
                np.save(folder / f"in{place}.npy", array)
                flags.append(f"--input=@{folder}/in{place}.npy")
            outputs = [folder / f"out{place}.npy" for place in range(results)]
            flags += [f"--output=@{output}" for output in outputs]
            command = [*ARM_COMMAND, tool, *flags]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr[-2000:]
            return [np.load(output) for output in outputs]

    return call


def batch_program(kernels: Sequence[Kernel]) -> str:
    """A module whose ``main`` takes all inputs and returns all outputs, kernel by kernel.

    A kernel may come several times.
    """
    number = count()
    declarations: dict[str, str] = {}
    parameters, lines, results, types = [], [], [], []
    for place, kernel in enumerate(kernels):
        names = [f"%in{next(number)}" for _ in kernel.inputs]
        parameters += [f"{n}: {o.tensor}" for n, o in zip(names, kernel.inputs, strict=True)]
        if kernel.name not in declarations:
            declarations[kernel.name] = kernel.declaration()
        many = len(kernel.outputs)
        lines.append(f"%r{place}:{many} = {kernel.call(names)}")
        results += [f"%r{place}#{output}" for output in range(many)]
        types += [output.tensor for output in kernel.outputs]
    returned = ", ".join(types)
    return (
        "".join(declarations.values())
        + f"func.func @main({', '.join(parameters)}) -> ({returned}) {{\n"
        + "\n".join(lines)
        + f"\nreturn {', '.join(results)} : {returned}\n}}\n"
    )


def outputs_of(cases: Sequence[tuple[Kernel, Arguments]], target: Target) -> list[list[_Array]]:
    """Compile for ``target``, run here or under emulation; all outputs of each kernel."""
    kernels = [kernel for kernel, _ in cases]
    many = sum(len(kernel.outputs) for kernel in kernels)
    call = load(batch_program(kernels), many, target)
    found = iter(call([array for _, arguments in cases for array in arguments]))
    return [[next(found) for _ in kernel.outputs] for kernel in kernels]


def run_batch(cases: Sequence[tuple[Kernel, Arguments]], target: Target) -> list[_Array]:
    """The first output of each kernel."""
    return [first for first, *_ in outputs_of(cases, target)]
