"""The device ``vulkan``: a GPU, or Mesa's software driver, through the Vulkan loader."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingDeviceError
from ..targets import get, names
from .device import DeviceInfo, check_threads, check_timeout
from .selection import choose_target
from .tool_device import ToolDevice
from .toolchain import Toolchain
from .tools import tool_directory
from .vulkan_probe import LoaderMissing, VulkanGpu, lacking, probe

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .session import Session

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

    usable: tuple[VulkanGpu, ...]
    missing: str = ""
    remedy: str = ""


class VulkanDevice(ToolDevice):
    """The Vulkan devices of this machine: each module runs on one that it was compiled for.

    A module computes wrong numbers, silently, on a GPU with another subgroup size than its
    target's, so it runs only where its target says it is right.
    """

    name = "vulkan"
    max_threads = 1
    settles = True

    def info(self) -> DeviceInfo:
        """Return what is known of the first usable device, and the names of all."""
        found = _find()
        if not found.usable:
            return DeviceInfo(
                name=self.name,
                available=False,
                emulated=False,
                description="a GPU through Vulkan",
                missing=found.missing,
                remedy=found.remedy,
            )
        first = found.usable[0]
        fitting = [
            name
            for name in names()
            for target in [get(name)]
            if any(_is_right_on(target.vulkan_device_patterns, gpu) for gpu in found.usable)
        ]
        return DeviceInfo(
            name=self.name,
            available=True,
            emulated=first.software,
            description=f"{_kind(first)} through Vulkan: {first.name}",
            targets=tuple(fitting),
            details={**_details(first), "devices": [gpu.name for gpu in found.usable]},
        )

    def check(self, bundle: Bundle, module: ModuleEntry) -> None:
        """Raise MissingDeviceError if there is no device on which the module is right."""
        what = f"{module.file} of {bundle.path}"
        if module.kind != "vulkan":
            raise MissingDeviceError(f"{what} is for a CPU ({module.target}), not for a GPU")
        self._gpu(module)

    def _gpu(self, module: ModuleEntry) -> VulkanGpu:
        tool_directory()
        found = _find()
        if not found.usable:
            raise MissingDeviceError(f"vulkan is not available. {found.missing} {found.remedy}")
        try:
            patterns = get(module.target).vulkan_device_patterns
        except InputError:
            raise MissingDeviceError(
                f"{module.file} is for the target {module.target!r}, which this canao does not "
                "know, so it cannot tell where its numbers are right: install the package that "
                "defines that target"
            ) from None
        for gpu in found.usable:
            if _is_right_on(patterns, gpu):
                return gpu
        here = ", ".join(gpu.name for gpu in found.usable)
        raise MissingDeviceError(
            f"{module.file} was compiled for {module.target} and computes wrong numbers on other "
            f"GPUs, and here is only {here}: compile the model for a target that fits it"
        )

    def session(
        self,
        bundle: Bundle,
        *,
        target: str | None = None,
        threads: int = 1,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Session:
        """Load the bundle onto the GPU, driven from this process."""
        from .hal_devices import create_hal_device
        from .in_process import InProcessEngine
        from .session import Session

        check_threads(threads, most=self.max_threads, device=self.name)
        check_timeout(timeout)
        chosen = choose_target(bundle, self, target)
        device = create_hal_device(_uri(self._gpu(bundle.module(chosen))))
        return Session(
            bundle,
            InProcessEngine(bundle, device, check=self.check, mapped=False),
            device=self.name,
            target=chosen,
            timeout=timeout,
            truncate=truncate,
        )

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
        return _Found((), "The Vulkan loader (libvulkan.so.1) is not installed.", _LOADER_REMEDY)
    if not gpus:
        return _Found((), "No Vulkan driver (ICD) offers a device.", _DRIVER_REMEDY)
    usable = [gpu for gpu in gpus if not lacking(gpu)]
    if not usable:
        faults = [f"{gpu.name} lacks {', '.join(lacking(gpu))}" for gpu in gpus]
        return _Found(
            (), f"IREE needs more than the driver has: {'; '.join(faults)}.", _UPDATE_REMEDY
        )
    return _Found(tuple(sorted(usable, key=lambda gpu: gpu.software)))


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
