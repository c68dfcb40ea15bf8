"""The device ``vulkan``: a GPU, or Mesa's software driver, through the Vulkan loader."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..targets import get, names
from .device import DeviceInfo
from .probed_device import runtime_absence
from .refusals import Absence, Needs, Objection
from .resident_device import ResidentDevice
from .toolchain import Toolchain
from .tools import tool_directory
from .vulkan_probe import LoaderMissing, VulkanGpu, lacking, probe

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .in_process import InProcessEngine

__all__ = ["VulkanDevice"]

_LOADER_REMEDY = (
    "Install the Vulkan loader and a driver (Debian: apt install libvulkan1 mesa-vulkan-drivers)."
)
_DRIVER_REMEDY = (
    "Install the driver of the GPU, or Mesa's software driver "
    "(Debian: apt install mesa-vulkan-drivers)."
)
_UPDATE_REMEDY = "Update the driver of the GPU."


@dataclasses.dataclass(frozen=True)
class _Found:
    """The devices that will do, real ones first, or why there is none."""

    usable: tuple[VulkanGpu, ...] = ()
    absence: Absence | None = None


class VulkanDevice(ResidentDevice):
    """The Vulkan devices of this machine: each module runs on one that it was compiled for.

    A module computes wrong numbers, silently, on a GPU with another subgroup size than its
    target's, so it runs only where its target says it is right.
    """

    name = "vulkan"
    max_threads = 1
    settles = True

    def absence(self) -> Absence | None:
        """Return what is missing of the runtime, the Vulkan loader and a driver that will do."""
        return runtime_absence() or self._found.absence

    def about(self) -> DeviceInfo:
        """Return what is known of the first usable device, and the names of all."""
        gpus = self._found.usable
        if not gpus:
            return DeviceInfo(
                name=self.name,
                available=True,
                emulated=False,
                description="a GPU through Vulkan",
            )
        return DeviceInfo(
            name=self.name,
            available=True,
            emulated=gpus[0].software,
            description=f"{_kind(gpus[0])} through Vulkan: {gpus[0].name}",
            details={**_details(gpus[0]), "devices": [gpu.name for gpu in gpus]},
        )

    def objection(self, needs: Needs) -> Objection | None:
        """Return why the module's numbers would not be right on any device here."""
        if needs.kind != "vulkan":
            return Objection(reason="for a CPU, not for a GPU", remedy=self._remedy())
        try:
            patterns = get(needs.target).vulkan_device_patterns
        except InputError:
            return Objection(
                reason=f"for the target {needs.target!r}, which this canao does not know, so it "
                "cannot tell where its numbers are right",
                remedy="install the package that defines that target",
            )
        gpu = self._first(patterns)
        if gpu is None:
            here = ", ".join(gpu.name for gpu in self._found.usable)
            return Objection(
                reason=f"for other GPUs than {here}, where its code computes wrong numbers",
                remedy=self._remedy(),
            )
        return self._lacks(gpu, needs)

    def _lacks(self, gpu: VulkanGpu, needs: Needs) -> Objection | None:
        lacking = [feature for feature in needs.features if feature not in gpu.features]
        if not lacking:
            return None
        return Objection(
            reason=f"for GPUs with features that {gpu.name} lacks ({', '.join(lacking)})",
            remedy="compile the model in another precision",
        )

    @cached_property
    def _found(self) -> _Found:
        # Asking the drivers takes long, and what is there does not change between two modules.
        return _find()

    def _first(self, patterns: tuple[str, ...]) -> VulkanGpu | None:
        return next((gpu for gpu in self._found.usable if _is_right_on(patterns, gpu)), None)

    def _remedy(self) -> str:
        fitting = [name for name in names() if self._first(get(name).vulkan_device_patterns)]
        if not fitting:
            return "register a target whose modules are right on the GPU that is here"
        return f"compile the model for the target {' or '.join(map(repr, fitting))}"

    def _gpu(self, module: ModuleEntry) -> VulkanGpu:
        """The device that runs a module which was checked."""
        gpu = self._first(get(module.target).vulkan_device_patterns)
        assert gpu is not None
        return gpu

    def engine(self, bundle: Bundle, *, target: str, threads: int) -> InProcessEngine:
        """Return an engine for the target's GPU, driven from this process."""
        from .hal_devices import create_hal_device
        from .in_process import InProcessEngine

        device = create_hal_device(_uri(self._gpu(bundle.module(target))))
        return InProcessEngine(bundle, device, check=self.check, mapped=False)

    def toolchain(self, module: ModuleEntry, threads: int) -> Toolchain:
        """Return IREE's tools, told which GPU to use."""
        return Toolchain(
            name=self.name,
            directory=tool_directory(),
            flags=(f"--device={_uri(self._gpu(module))}",),
            profiling_mode="dispatch-events",
        )

    def facts(self, module: ModuleEntry) -> tuple[bool, dict[str, Any]]:
        """Return whether the module's GPU is only software, and what it is."""
        gpu = self._gpu(module)
        return gpu.software, _details(gpu)


def _find() -> _Found:
    try:
        gpus = probe()
    except LoaderMissing:
        return _absent("The Vulkan loader (libvulkan.so.1) is not installed.", _LOADER_REMEDY)
    if not gpus:
        return _absent("No Vulkan driver (ICD) offers a device.", _DRIVER_REMEDY)
    usable = [gpu for gpu in gpus if not lacking(gpu)]
    if not usable:
        faults = [f"{gpu.name} lacks {', '.join(lacking(gpu))}" for gpu in gpus]
        return _absent(
            f"IREE needs more than the driver has: {'; '.join(faults)}.", _UPDATE_REMEDY
        )
    return _Found(tuple(sorted(usable, key=lambda gpu: gpu.software)))


def _absent(missing: str, remedy: str) -> _Found:
    return _Found(absence=Absence(missing=missing, remedy=remedy))


def _is_right_on(patterns: tuple[str, ...], gpu: VulkanGpu) -> bool:
    return any(pattern in gpu.name.lower() for pattern in patterns)


def _kind(gpu: VulkanGpu) -> str:
    return "software" if gpu.software else gpu.kind


def _uri(gpu: VulkanGpu) -> str:
    return f"vulkan://GPU-{gpu.uuid}"


def _details(gpu: VulkanGpu) -> dict[str, Any]:
    return {
        "gpu": gpu.name,
        "kind": _kind(gpu),
        "software": gpu.software,
        "vulkan": ".".join(map(str, gpu.version)),
        "max_storage_buffer_bytes": gpu.max_storage_buffer_range,
        "subgroup_size": gpu.subgroup_size,
    }
