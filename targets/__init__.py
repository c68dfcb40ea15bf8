"""What canao compiles for: one file a family of targets, and one table of them all."""

from __future__ import annotations

from .arm64 import ARM64, ARM64_I8MM
from .host import host_target, missing_features
from .registry import ENTRY_POINT_GROUP, get, names, register
from .target import PRECISIONS, Target, machine_arch
from .vulkan import VULKAN_ADRENO, VULKAN_FEATURES, VULKAN_LLVMPIPE, VULKAN_MALI

__all__ = [
    "ARM64",
    "ARM64_I8MM",
    "ENTRY_POINT_GROUP",
    "PRECISIONS",
    "VULKAN_ADRENO",
    "VULKAN_FEATURES",
    "VULKAN_LLVMPIPE",
    "VULKAN_MALI",
    "Target",
    "get",
    "host_target",
    "machine_arch",
    "missing_features",
    "names",
    "register",
]
