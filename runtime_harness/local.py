"""The device ``local``: this machine's own CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..targets import machine_arch, missing_features
from .device import MAX_THREADS, DeviceInfo
from .probed_device import runtime_absence
from .refusals import Absence, Needs, Objection
from .resident_device import ResidentDevice
from .toolchain import Toolchain
from .tools import tool_directory

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .in_process import InProcessEngine

__all__ = ["LocalDevice"]

_REMEDY = "compile the model for the target 'host' on this machine"


class LocalDevice(ResidentDevice):
    """This machine's CPU.

    One thread runs in the calling thread, without a pool; more run on exactly as many workers.
    """

    name = "local"
    max_threads = MAX_THREADS

    def absence(self) -> Absence | None:
        """Return what is missing if IREE's runtime is not installed."""
        return runtime_absence()

    def about(self) -> DeviceInfo:
        """Return what is known of this machine's CPU."""
        from .environment import cpu_count, cpu_model

        return DeviceInfo(
            name=self.name,
            available=True,
            emulated=False,
            description=f"this machine's CPU: {cpu_model()}",
            details={"arch": machine_arch(), "cpus": cpu_count()},
        )

    def objection(self, needs: Needs) -> Objection | None:
        """Return what this CPU is or has not."""
        if needs.kind != "cpu":
            return Objection(reason="for a GPU, not for a CPU", remedy=_REMEDY)
        if needs.arch != machine_arch():
            return Objection(
                reason=f"for {needs.arch} CPUs, but this machine is {machine_arch()}",
                remedy=_REMEDY,
            )
        lacking = missing_features(needs.features, needs.arch)
        if lacking:
            return Objection(
                reason=f"for CPUs with features that this machine lacks ({', '.join(lacking)})",
                remedy=_REMEDY,
            )
        return None

    def engine(self, bundle: Bundle, *, target: str, threads: int) -> InProcessEngine:
        """Return an engine with a pool of its own, inside this process."""
        from .hal_devices import create_hal_device
        from .in_process import InProcessEngine

        device = create_hal_device(_driver(threads), threads=threads)
        return InProcessEngine(bundle, device, check=self.check, mapped=True, pooled=threads > 1)

    def toolchain(self, module: ModuleEntry, threads: int) -> Toolchain:
        """Return IREE's tools as they are."""
        return Toolchain(name=self.name, directory=tool_directory(), flags=cpu_flags(threads))

    def facts(self, module: ModuleEntry) -> tuple[bool, dict[str, Any]]:
        """Return that times are real, and which driver runs the module."""
        return False, {"arch": machine_arch()}


def _driver(threads: int) -> str:
    # Without a pool a call saves two wake-ups of other threads, some 70 microseconds.
    return "local-sync" if threads == 1 else "local-task"


def cpu_flags(threads: int) -> tuple[str, ...]:
    """Return the flags by which IREE's tools use ``threads`` CPU threads."""
    driver = _driver(threads)
    pool = () if threads == 1 else (f"--task_topology_group_count={threads}",)
    return (f"--device={driver}", *pool)
