"""What a device is: the protocol, and the values that its methods give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry
    from .session import Session

__all__ = [
    "MAX_THREADS",
    "Device",
    "DeviceInfo",
    "DispatchTime",
    "RawTiming",
    "check_count",
    "check_threads",
    "check_timeout",
]

MAX_THREADS = 64
"""The most workers that IREE's thread pool has."""


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """What is known of a device before anything runs on it.

    ``emulated`` says that its timings are not those of real silicon. If it is not
    ``available``, ``missing`` says in one sentence what it lacks and ``remedy`` how to get it.
    ``targets`` names the targets whose modules it may run; ``details`` holds JSON values such
    as the driver's name and version.
    """

    name: str
    available: bool
    emulated: bool
    description: str
    missing: str = ""
    remedy: str = ""
    targets: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the information as JSON values."""
        return {
            "name": self.name,
            "available": self.available,
            "emulated": self.emulated,
            "description": self.description,
            "missing": self.missing,
            "remedy": self.remedy,
            "targets": list(self.targets),
            "details": self.details,
        }


@dataclass(frozen=True, kw_only=True)
class RawTiming:
    """Times of single calls, in milliseconds and in the order they were taken, none left out.

    ``warmup_ms`` came before ``samples_ms``. ``peak_bytes`` is the largest resident memory of
    the process that ran the module, weights and runtime included (an emulator's own memory as
    well); None where it cannot be told. ``details`` holds JSON values on the device used.
    """

    samples_ms: tuple[float, ...]
    warmup_ms: tuple[float, ...]
    peak_bytes: int | None
    emulated: bool
    method: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DispatchTime:
    """A dispatch of one inference: its function's name and its time in milliseconds.

    A device that tells functions apart but not their calls gives one per function, with the
    number of ``calls`` and their time in all.
    """

    name: str
    ms: float
    calls: int = 1


@runtime_checkable
class Device(Protocol):
    """A place where modules run. ``conformance.py`` holds the checks that each one passes.

    Inputs and outputs of ``run``, ``bench`` and ``profile`` have the module's own static
    shapes; a Session pads and cuts. ``threads`` is at least 1 and ``timeout`` is in seconds
    (None: no limit).

    What only some devices have is looked for by name. ``here`` (True): modules run on this
    machine, whose kernel tells of its cores. ``reading(when)``, of a device elsewhere: its clocks
    and temperatures now, as a `readings.Reading`; measurements then wait while that is ``hot``.
    """

    name: str

    def info(self) -> DeviceInfo:
        """Return what is known of the device; never raises because something is missing."""

    def check(self, bundle: Bundle, module: ModuleEntry) -> None:
        """Raise MissingDeviceError, naming what is lacking, if the module may not run here."""

    def session(
        self,
        bundle: Bundle,
        *,
        target: str | None = None,
        threads: int = 1,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Session:
        """Return a session for the modules of one target (None: the one that fits best)."""

    def run(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, NDArray[Any]],
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> list[NDArray[Any]]:
        """Run the module once, in a process of its own, and return its outputs in order."""

    def bench(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, NDArray[Any]],
        *,
        threads: int = 1,
        repetitions: int,
        warmup: int,
        timeout: float | None = None,
    ) -> RawTiming:
        """Time ``repetitions`` calls after at least ``warmup`` others."""

    def profile(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, NDArray[Any]],
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> list[DispatchTime]:
        """Return each dispatch's time, in order; UnsupportedError if the device cannot tell."""


def check_count(name: str, value: int, least: int) -> None:
    """Raise InputError unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_threads(threads: int, *, most: int = MAX_THREADS, device: str) -> None:
    """Raise InputError unless ``threads`` is a whole number from 1 to ``most``."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= most:
        allowed = f"from 1 to {most}" if most > 1 else "1"
        raise InputError(f"threads must be {allowed} on {device}, not {threads!r}")


def check_timeout(timeout: float | None) -> None:
    """Raise InputError unless ``timeout`` is None or a positive number of seconds."""
    if timeout is None:
        return
    good = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not good or not timeout > 0:
        raise InputError(f"timeout must be a positive number of seconds, not {timeout!r}")
