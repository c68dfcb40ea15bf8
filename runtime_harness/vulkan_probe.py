"""What Vulkan itself says of this machine's devices, asked through the loader with ctypes.

Only what IREE's runtime needs to know is asked: name, version, kind, limits, the three features
without which it cannot work, and those that modules in a narrow precision need.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_int32,
    c_uint32,
    c_void_p,
)
from dataclasses import dataclass, field
from typing import Any

from .vulkan_structs import (
    ApplicationInfo,
    Feature,
    Features2,
    IdProperties,
    InstanceCreateInfo,
    Properties,
    Properties2,
    SubgroupProperties,
)

__all__ = ["NEEDED_FEATURES", "NEEDED_VERSION", "LoaderMissing", "VulkanGpu", "lacking", "probe"]

NEEDED_VERSION = (1, 3)
NEEDED_FEATURES = ("timelineSemaphore", "scalarBlockLayout", "synchronization2")

_LOADERS = ("libvulkan.so.1", "libvulkan.so", "libvulkan.1.dylib", "libMoltenVK.dylib")
_KINDS = ("other", "integrated GPU", "discrete GPU", "virtual GPU", "CPU")
_CPU = 4

# VkResult, VkStructureType and versions, from the Vulkan specification.
_SUCCESS, _INCOMPLETE, _INCOMPATIBLE_DRIVER = 0, 5, -9
_INSTANCE_CREATE_INFO, _APPLICATION_INFO = 1, 0
_PROPERTIES_2, _FEATURES_2 = 1000059001, 1000059000
_ID_PROPERTIES, _SUBGROUP_PROPERTIES = 1000071004, 1000094000
# The structures that hold features, by number, each with the first flags in it.
_FEATURE_TYPES: dict[int, tuple[str, ...]] = {
    1000207000: ("timelineSemaphore",),
    1000221000: ("scalarBlockLayout",),
    1000314007: ("synchronization2",),
    1000177000: ("storageBuffer8BitAccess",),
    1000083000: ("storageBuffer16BitAccess",),
    1000082000: ("shaderFloat16", "shaderInt8"),
    1000280000: ("shaderIntegerDotProduct",),
}
_SHADER_INT16 = 41  # its place among the features of Vulkan 1.0
_API_1_1, _API_1_3 = (1 << 22) | (1 << 12), (1 << 22) | (3 << 12)


class LoaderMissing(Exception):
    """There is no Vulkan loader on this machine."""


@dataclass(frozen=True, kw_only=True)
class VulkanGpu:
    """One device of one Vulkan driver.

    ``uuid`` is hexadecimal; ``software`` says that a CPU computes; ``features`` holds those of
    NEEDED_FEATURES, and of what modules in a narrow precision need, that it has;
    ``max_storage_buffer_range`` is in bytes.
    """

    name: str
    uuid: str
    kind: str
    software: bool
    version: tuple[int, int, int]
    max_storage_buffer_range: int
    subgroup_size: int
    features: frozenset[str] = field(default_factory=frozenset)


def lacking(gpu: VulkanGpu) -> list[str]:
    """Return what IREE's runtime needs and the device has not; empty if it will do."""
    if gpu.version[:2] < NEEDED_VERSION:
        wanted, found = (".".join(map(str, part)) for part in (NEEDED_VERSION, gpu.version[:2]))
        return [f"Vulkan {wanted} (it has {found})"]
    return [feature for feature in NEEDED_FEATURES if feature not in gpu.features]


def probe() -> list[VulkanGpu]:
    """Return every Vulkan device; none if there is no driver. Raises LoaderMissing."""
    loader = _load()
    create = _function(loader, "vkCreateInstance", c_void_p, c_void_p, POINTER(c_void_p))
    application = ApplicationInfo(sType=_APPLICATION_INFO, apiVersion=_API_1_3)
    info = InstanceCreateInfo(
        sType=_INSTANCE_CREATE_INFO,
        pApplicationInfo=ctypes.addressof(application),
    )
    instance = c_void_p()
    # A loader without any driver says "incompatible driver"; whatever it is, nothing will run.
    if create(byref(info), None, byref(instance)) != _SUCCESS:
        return []
    try:
        return [_describe(loader, handle) for handle in _handles(loader, instance)]
    finally:
        destroy = loader.vkDestroyInstance
        destroy.argtypes, destroy.restype = [c_void_p, c_void_p], None
        destroy(instance, None)


def _load() -> Any:
    for name in _LOADERS:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise LoaderMissing


def _function(loader: Any, name: str, *arguments: Any) -> Callable[..., int]:
    function = getattr(loader, name)
    function.argtypes, function.restype = list(arguments), c_int32
    return function  # type: ignore[no-any-return]


def _handles(loader: Any, instance: c_void_p) -> list[c_void_p]:
    enumerate_devices = _function(
        loader, "vkEnumeratePhysicalDevices", c_void_p, POINTER(c_uint32), c_void_p
    )
    count = c_uint32()
    if enumerate_devices(instance, byref(count), None) != _SUCCESS or not count.value:
        return []
    handles = (c_void_p * count.value)()
    if enumerate_devices(instance, byref(count), handles) not in (_SUCCESS, _INCOMPLETE):
        return []
    return [c_void_p(value) for value in handles[: count.value]]


def _describe(loader: Any, handle: c_void_p) -> VulkanGpu:
    # The older query first: to a device below 1.1 the newer ones may not be put.
    basic = Properties()
    _query(loader, "vkGetPhysicalDeviceProperties", handle, basic)
    uuid, subgroup, features = "", 0, frozenset[str]()
    if basic.apiVersion >= _API_1_1:
        lanes = SubgroupProperties(sType=_SUBGROUP_PROPERTIES)
        identity = IdProperties(sType=_ID_PROPERTIES, pNext=ctypes.addressof(lanes))
        properties = Properties2(sType=_PROPERTIES_2, pNext=ctypes.addressof(identity))
        _query(loader, "vkGetPhysicalDeviceProperties2", handle, properties)
        uuid, subgroup = bytes(identity.deviceUUID).hex(), lanes.subgroupSize
    if basic.apiVersion >= _API_1_3:
        features = _features(loader, handle)
    kind = basic.deviceType if basic.deviceType < len(_KINDS) else 0
    version = basic.apiVersion
    return VulkanGpu(
        name=basic.deviceName.decode(errors="replace"),
        uuid=uuid,
        kind=_KINDS[kind],
        software=basic.deviceType == _CPU,
        version=(version >> 22 & 0x7F, version >> 12 & 0x3FF, version & 0xFFF),
        max_storage_buffer_range=basic.maxStorageBufferRange,
        subgroup_size=subgroup,
        features=features,
    )


def _features(loader: Any, handle: c_void_p) -> frozenset[str]:
    asked = {number: Feature(sType=number) for number in _FEATURE_TYPES}
    following = None
    for feature in asked.values():
        feature.pNext = following
        following = ctypes.addressof(feature)
    basic = Features2(sType=_FEATURES_2, pNext=following)
    _query(loader, "vkGetPhysicalDeviceFeatures2", handle, basic)
    found = {
        name
        for number, names in _FEATURE_TYPES.items()
        for name, flag in zip(names, asked[number].flags, strict=False)
        if flag
    }
    if basic.features[_SHADER_INT16]:
        found.add("shaderInt16")
    return frozenset(found)


def _query(loader: Any, name: str, handle: c_void_p, result: Structure) -> None:
    function = getattr(loader, name)
    function.argtypes, function.restype = [c_void_p, c_void_p], None
    function(handle, byref(result))
