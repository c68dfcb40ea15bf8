"""IREE's compiler, a phase at a time.

`iree.compiler.api` runs its pipeline from start to end. Rewriting between phases needs "up to
this phase" and "on from this phase", which the C API has and the Python class does not wrap;
`PhasedCompiler` adds them. One instance compiles one module in one MLIR context.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iree.compiler import ir
from iree.compiler.api import Output, Session, ctypes_dl

from ..errors import CompileError

__all__ = ["PHASES", "Diagnostic", "PhasedCompiler"]

# The compiler's own order; `start` is the module as parsed, `end` is bytecode ready to write.
PHASES = (
    "start",
    "input",
    "abi",
    "preprocessing",
    "global-optimization",
    "dispatch-creation",
    "flow",
    "stream",
    "executable-sources",
    "executable-configurations",
    "executable-targets",
    "hal",
    "vm",
    "end",
)

_DIAGNOSTIC = re.compile(r"(?P<location>.*?): (?P<severity>error|warning|remark): (?P<message>.*)")

_dylib = ctypes_dl._dylib
for _name in (
    "ireeCompilerInvocationSetCompileFromPhase",
    "ireeCompilerInvocationSetCompileToPhase",
):
    _function = getattr(_dylib, _name)
    _function.argtypes, _function.restype = [ctypes.c_void_p, ctypes.c_char_p], None


@dataclass(frozen=True)
class Diagnostic:
    """One message of the compiler: severity, location as MLIR prints it, text."""

    severity: str
    location: str
    message: str


class PhasedCompiler:
    """Holds a module and moves it through IREE's phases; between them it may be rewritten."""

    def __init__(self, text: str, flags: Sequence[str]) -> None:
        self._session = Session()
        try:
            self._session.set_flags(*flags)
        except ValueError as error:
            raise CompileError(f"IREE refuses a compiler flag: {error}") from error
        self.context = self._session.context
        self.context.load_all_available_dialects()
        self.diagnostics: list[Diagnostic] = []
        self._phase = "start"
        with self.context:
            try:
                self.module = ir.Module.parse(text)
            except ir.MLIRError as error:
                raise CompileError(f"The module is not valid IR: {error}") from error
        self._invocation = self._session.invocation()
        # Text on standard error, not a Python handler: the compiler's threads call a handler
        # without the interpreter's lock.
        self._invocation.enable_console_diagnostics()
        self._imported = False

    def advance(self, phase: str) -> None:
        """Run the pipeline up to and including ``phase``.

        Raises `CompileError` with the first error the compiler reported.
        """
        if PHASES.index(phase) <= PHASES.index(self._phase):
            raise ValueError(f"the module is already past {phase}")
        if not self._imported:
            self._invocation.import_module(self.module.operation)
            self._imported = True
        handle = self._invocation._inv_p
        _dylib.ireeCompilerInvocationSetCompileFromPhase(handle, self._phase.encode())
        _dylib.ireeCompilerInvocationSetCompileToPhase(handle, phase.encode())
        with _captured_stderr() as printed:
            done = self._invocation.execute()
        self.diagnostics.extend(_parse(printed()))
        if not done:
            raise CompileError(f"IREE failed between {self._phase} and {phase}")
        self._phase = phase

    def write(self, path: Path) -> None:
        """Write the finished module's bytecode (.vmfb)."""
        output = Output.open_file(str(path))
        try:
            self._invocation.output_vm_bytecode(output)
            output.keep()
        finally:
            output.close()

    def errors(self) -> list[Diagnostic]:
        """The errors reported so far, first one first."""
        return [d for d in self.diagnostics if d.severity == "error"]


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Collect what native code writes to file descriptor 2; the result is read afterwards."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        text = ""
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            text = file.read().decode("utf-8", errors="replace")


def _parse(text: str) -> Iterator[Diagnostic]:
    """Diagnostics as MLIR prints them: ``LOCATION: error: MESSAGE``, notes on lines after."""
    for line in text.splitlines():
        match = _DIAGNOSTIC.match(line)
        if match:
            yield Diagnostic(match["severity"], match["location"], match["message"])
