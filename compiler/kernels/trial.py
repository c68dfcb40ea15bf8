"""One kernel as a program of its own: for its tests, its benchmark and the chooser.

`program` is the text of a module whose function calls the kernel once (or several times in a
row, for timing); `build` compiles it in a killable process with a time-out.
"""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from ...errors import CompileError
from ...targets import Target
from ..flags import iree_flags
from .executable import Kernel

__all__ = ["build", "program"]


def program(kernel: Kernel) -> str:
    """A module whose ``main`` takes the kernel's inputs and returns its outputs."""
    names = [f"%in{i}" for i in range(len(kernel.inputs))]
    arguments = ", ".join(f"{n}: {o.tensor}" for n, o in zip(names, kernel.inputs, strict=True))
    types = ", ".join(o.tensor for o in kernel.outputs)
    count = len(kernel.outputs)
    results = ", ".join(f"%r#{i}" for i in range(count)) if count > 1 else "%r"
    left = f"%r:{count}" if count > 1 else "%r"
    return (
        f"{kernel.declaration()}"
        f"func.func @main({arguments}) -> ({types}) {{\n"
        f"{left} = {kernel.call(names)}\n"
        f"return {results} : {types}\n}}\n"
    )


def build(text: str, target: Target, output: Path, *, timeout: float = 120.0) -> None:
    """Compile ``text`` for ``target`` into ``output``. Raises `CompileError`."""
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    command = [str(compiler), "-", "-o", str(output), *iree_flags(target)]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"A kernel did not compile within {timeout:g} s.") from error
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no reason")
        raise CompileError(f"A kernel did not compile for {target.name}: {first.strip()}")
