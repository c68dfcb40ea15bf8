"""What a session runs on: an engine opens modules, and each becomes a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import ModuleEntry

__all__ = ["Engine", "Program"]


class Program(Protocol):
    """A module ready to be called, always with arrays of the same shapes.

    ``inputs`` are the arrays to write the inputs into, in the manifest's order; they keep their
    contents between calls. What ``invoke`` returns, in the manifest's order, is valid until
    the next call: copy what is to be kept.
    """

    @property
    def inputs(self) -> Sequence[NDArray[Any]]:
        """The arrays to write to."""

    def invoke(self, timeout: float | None) -> Sequence[NDArray[Any]]:
        """Run once; raises DeviceError if that fails or takes more than ``timeout`` seconds."""

    def close(self) -> None:
        """Give back what the program holds."""


class Engine(Protocol):
    """Opens the modules of one bundle on one device.

    ``stoppable`` says that ``invoke`` keeps its time-out by itself. If it does not (a call
    inside this process), the session watches the clock.
    """

    stoppable: bool

    def open(self, module: ModuleEntry) -> Program:
        """Load a module; raises MissingDeviceError, BundleError or DeviceError."""

    def close(self) -> None:
        """Give back what the engine holds; its programs are closed before."""
