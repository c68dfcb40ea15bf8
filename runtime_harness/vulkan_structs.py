"""The few of Vulkan's structures that are asked of a driver, as ctypes knows them."""

from __future__ import annotations

from ctypes import Structure, c_char, c_char_p, c_uint8, c_uint32, c_void_p

__all__ = [
    "ApplicationInfo",
    "Feature",
    "Features2",
    "IdProperties",
    "InstanceCreateInfo",
    "Properties",
    "Properties2",
    "SubgroupProperties",
]


class ApplicationInfo(Structure):
    """VkApplicationInfo."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("pApplicationName", c_char_p),
        ("applicationVersion", c_uint32),
        ("pEngineName", c_char_p),
        ("engineVersion", c_uint32),
        ("apiVersion", c_uint32),
    )


class InstanceCreateInfo(Structure):
    """VkInstanceCreateInfo."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("flags", c_uint32),
        ("pApplicationInfo", c_void_p),
        ("enabledLayerCount", c_uint32),
        ("ppEnabledLayerNames", c_void_p),
        ("enabledExtensionCount", c_uint32),
        ("ppEnabledExtensionNames", c_void_p),
    )


class Properties(Structure):
    """VkPhysicalDeviceProperties; of the limits only those up to the one wanted have names."""

    _fields_ = (
        ("apiVersion", c_uint32),
        ("driverVersion", c_uint32),
        ("vendorID", c_uint32),
        ("deviceID", c_uint32),
        ("deviceType", c_uint32),
        ("deviceName", c_char * 256),
        ("pipelineCacheUUID", c_uint8 * 16),
        ("alignment", c_uint32),
        ("earlierLimits", c_uint32 * 7),
        ("maxStorageBufferRange", c_uint32),
        ("laterLimits", c_uint8 * 472),
        ("sparseProperties", c_uint32 * 5),
        ("tail", c_uint32),
    )


class Properties2(Structure):
    """VkPhysicalDeviceProperties2."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("properties", Properties),
    )


class IdProperties(Structure):
    """VkPhysicalDeviceIDProperties."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("deviceUUID", c_uint8 * 16),
        ("driverUUID", c_uint8 * 16),
        ("deviceLUID", c_uint8 * 8),
        ("deviceNodeMask", c_uint32),
        ("deviceLUIDValid", c_uint32),
    )


class SubgroupProperties(Structure):
    """VkPhysicalDeviceSubgroupProperties."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("subgroupSize", c_uint32),
        ("supportedStages", c_uint32),
        ("supportedOperations", c_uint32),
        ("quadOperationsInAllStages", c_uint32),
    )


class Features2(Structure):
    """VkPhysicalDeviceFeatures2, its features unnamed."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("features", c_uint32 * 55),
    )


class Feature(Structure):
    """Any of the VkPhysicalDevice...Features structures that hold at most four features."""

    _fields_ = (
        ("sType", c_uint32),
        ("pNext", c_void_p),
        ("flags", c_uint32 * 4),
    )
