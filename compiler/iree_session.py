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
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iree.compiler import ir
from iree.compiler.api import Output, Session, ctypes_dl

from ..errors import CompileError

__all__ = ["PHASES", "Diagnostic", "PhasedCompiler", "PipelineError"]

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

# File descriptor 2 belongs to the whole process, so one thread at a time may redirect it.
_STDERR = threading.Lock()

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


class PipelineError(CompileError):
    """IREE's own pipeline failed; ``diagnostics`` are the errors it reported, first one first."""

    def __init__(self, message: str, diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message)
        self.diagnostics = tuple(diagnostics)


class PhasedCompiler:
    """Holds a module and moves it through IREE's phases; between them it may be rewritten.

    ``log`` is the file that file descriptor 2 of this process writes to, where it does: the
    diagnostics are then read from there. Otherwise the descriptor is redirected for as long as
    the compiler runs, by one thread at a time.
    """

    def __init__(self, text: str, flags: Sequence[str], *, log: Path | None = None) -> None:
        self._log = log
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

        Raises `PipelineError` with the errors that the compiler reported.
        """
        if PHASES.index(phase) <= PHASES.index(self._phase):
            raise ValueError(f"the module is already past {phase}")
        if not self._imported:
            try:
                self._invocation.import_module(self.module.operation)
            except RuntimeError as error:
                raise CompileError(f"IREE does not take the module: {error}") from error
            self._imported = True
        handle = self._invocation._inv_p
        _dylib.ireeCompilerInvocationSetCompileFromPhase(handle, self._phase.encode())
        _dylib.ireeCompilerInvocationSetCompileToPhase(handle, phase.encode())
        with _printed_to(self._log) if self._log else _captured_stderr() as printed:
            done = self._invocation.execute()
        self.diagnostics.extend(_parse(printed()))
        if not done:
            errors = [d for d in self.diagnostics if d.severity == "error"]
            raise PipelineError(f"IREE failed between {self._phase} and {phase}", errors)
        self._phase = phase

    def write(self, path: Path) -> None:
        """Write the finished module's bytecode (.vmfb); `CompileError` where that fails."""
        try:
            output = Output.open_file(str(path))
            try:
                self._invocation.output_vm_bytecode(output)
                output.keep()
            finally:
                output.close()
        except (RuntimeError, ValueError) as error:
            raise CompileError(f"The compiled module cannot be written: {error}") from error


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Collect what native code writes to file descriptor 2; the result is read afterwards."""
    with _STDERR, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        saved = os.dup(2)
        text = ""
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            text = file.read().decode("utf-8", errors="replace")


@contextlib.contextmanager
def _printed_to(log: Path) -> Iterator[Callable[[], str]]:
    """What is appended to ``log`` inside the block."""
    sys.stderr.flush()
    start = log.stat().st_size

    def read() -> str:
        return log.read_bytes()[start:].decode("utf-8", errors="replace")

    yield read


def _parse(text: str) -> Iterator[Diagnostic]:
    """Diagnostics as MLIR prints them: ``LOCATION: error: MESSAGE``, notes on lines after."""
    for line in text.splitlines():
        match = _DIAGNOSTIC.match(line)
        if match:
            yield Diagnostic(match["severity"], match["location"], match["message"])
