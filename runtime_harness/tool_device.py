"""What every device that runs IREE's tools has in common."""

from __future__ import annotations

import contextlib
import statistics
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, UnsupportedError
from .device import DispatchTime, RawTiming, check_count, check_threads, check_timeout
from .probed_device import ProbedDevice
from .process_engine import ProcessEngine
from .toolchain import Toolchain, module_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry
    from .engine import Engine
    from .session import Session

__all__ = ["ToolDevice", "settled_at"]

_METHOD = "iree-benchmark-module, one call a repetition, wall-clock time"
_PROFILED_CALLS = 6
# A call is still one of settling if it takes this much longer than the median of the later ones.
_SETTLED = 1.25


class ToolDevice(ProbedDevice):
    """Base of a device whose modules run in processes of IREE's tools.

    A class sets ``name``, ``max_threads`` and, if first calls do one-time work of unknown
    length such as compiling shaders, ``settles``; and defines the abstract methods. A class
    whose ``engine`` works in a process of this machine, where the device's name opens the same
    device again, is ``resident``: it is then timed in a process that stays. One that is not
    ``here`` runs on another machine, whose cores and clocks this one knows nothing of.
    """

    max_threads: int
    settles: bool = False
    resident: bool = False
    here: bool = True

    @abstractmethod
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

    def engine(self, bundle: Bundle, *, target: str, threads: int) -> Engine:
        """Return an engine inside this process for one target; only if it is ``resident``."""
        raise UnsupportedError(f"{self.name} runs each call in a process of its own")

    def isolated_session(
        self,
        bundle: Bundle,
        *,
        target: str,
        seq_lens: Sequence[int] | None = None,
        threads: int = 1,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Session:
        """Return a session whose every call is a process of its own, so that it can be stopped.

        ``seq_lens`` restricts it to some of the target's lengths (None: all).
        """
        from .session import Session

        check_threads(threads, most=self.max_threads, device=self.name)
        check_timeout(timeout)
        lengths = tuple(seq_lens or bundle.seq_lens(target))
        modules = [bundle.module(target, length) for length in lengths]
        resources = contextlib.ExitStack()
        files = resources.enter_context(bundle.materialize(module_files(bundle, modules)))

        def run(
            module: ModuleEntry, inputs: dict[str, NDArray[Any]], limit: float | None
        ) -> list[NDArray[Any]]:
            tools = self.toolchain(module, threads)
            return tools.run(bundle.manifest, module, files, inputs, timeout=limit)

        return Session(
            bundle,
            ProcessEngine(bundle, check=self.check, run=run, resources=resources),
            device=self.name,
            target=target,
            seq_lens=lengths,
            timeout=timeout,
            truncate=truncate,
        )

    @abstractmethod
    def toolchain(self, module: ModuleEntry, threads: int) -> Toolchain:
        """Return the tools, with the flags that run this module on this device."""

    @abstractmethod
    def facts(self, module: ModuleEntry) -> tuple[bool, dict[str, Any]]:
        """Return whether times for this module are emulated, and details as JSON values."""

    def run(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, NDArray[Any]],
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> list[NDArray[Any]]:
        """Run the module once, in a process of its own, and return its outputs in order.

        ``inputs`` have the module's static shapes and types. Raises InputError,
        MissingDeviceError, and DeviceError if the module crashes or runs out of time.
        """
        tools = self._prepare(bundle, module, threads, timeout)
        with bundle.materialize(module_files(bundle, [module])) as files:
            return tools.run(bundle.manifest, module, files, inputs, timeout=timeout)

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
        """Time single calls, all in one process that was warmed up by others.

        On a device that settles, calls beyond ``warmup`` count as warm-up until one is as fast
        as the later ones; that may be as many again. Raises as ``run`` does.
        """
        check_count("repetitions", repetitions, 1)
        check_count("warmup", warmup, 0)
        tools = self._prepare(bundle, module, threads, timeout)
        spare = warmup if self.settles else 0
        with bundle.materialize(module_files(bundle, [module])) as files:
            times, peak = tools.time_calls(
                bundle.manifest,
                module,
                files,
                inputs,
                calls=warmup + spare + repetitions,
                timeout=timeout,
            )
        start = settled_at(times, warmup, warmup + spare) if spare else warmup
        emulated, details = self.facts(module)
        return RawTiming(
            samples_ms=tuple(times[start:]),
            warmup_ms=tuple(times[:start]),
            peak_bytes=peak,
            emulated=emulated,
            method=_METHOD,
            details=details,
        )

    def profile(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        inputs: Mapping[str, NDArray[Any]],
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> list[DispatchTime]:
        """Return each dispatch's time in order, the median over a few inferences.

        Raises UnsupportedError where IREE cannot tell dispatches apart, and as ``run`` does.
        """
        tools = self._prepare(bundle, module, threads, timeout)
        emulated, _ = self.facts(module)
        cannot = UnsupportedError(
            f"IREE cannot time single dispatches on {self.name}: profile the model on local"
        )
        with bundle.materialize(module_files(bundle, [module])) as files:
            try:
                found = tools.time_dispatches(
                    bundle.manifest,
                    module,
                    files,
                    inputs,
                    calls=1 if emulated else _PROFILED_CALLS,
                    timeout=timeout,
                )
            except DeviceError as error:
                if "UNIMPLEMENTED" in str(error):
                    raise cannot from error
                raise
        if not found:
            raise cannot
        return found

    def _prepare(
        self, bundle: Bundle, module: ModuleEntry, threads: int, timeout: float | None
    ) -> Toolchain:
        check_threads(threads, most=self.max_threads, device=self.name)
        check_timeout(timeout)
        self.check(bundle, module)
        return self.toolchain(module, threads)


def settled_at(times: Sequence[float], first: int, last: int) -> int:
    """Return the index, from ``first`` to ``last``, of the first call that is not settling."""
    for index in range(first, last):
        if times[index] <= _SETTLED * statistics.median(times[index + 1 :]):
            return index
    return last
