"""GPUs through Vulkan 1.3, and Mesa's software driver to check numbers with.

A module is generated for one subgroup size. On a driver with another size it computes wrong
numbers without any error, so each target names the devices it is right on.
"""

from __future__ import annotations

from .target import Target

__all__ = ["VULKAN_ADRENO", "VULKAN_FEATURES", "VULKAN_LLVMPIPE", "VULKAN_MALI"]

VULKAN_FEATURES: dict[str, tuple[str, ...]] = {
    "f32": (),
    "f16": ("storageBuffer16BitAccess", "shaderFloat16"),
    "bf16": ("storageBuffer16BitAccess", "shaderInt16"),
    "int8": ("storageBuffer8BitAccess", "shaderInt8", "shaderIntegerDotProduct"),
    "int8-weights": ("storageBuffer8BitAccess", "shaderInt8"),
}
"""The features of Vulkan that code in a precision asks of the driver."""

_PRECISIONS = tuple(VULKAN_FEATURES)

# The smallest maxStorageBufferRange among the drivers in use: llvmpipe's and many phones'.
_STORAGE_BUFFER_BYTES = 128 * 1024 * 1024

VULKAN_LLVMPIPE = Target(
    name="vulkan-llvmpipe",
    kind="vulkan",
    description="Mesa's software Vulkan: for checking numbers, not for speed",
    gpu="llvmpipe",
    precisions=_PRECISIONS,
    max_storage_buffer_bytes=_STORAGE_BUFFER_BYTES,
    subgroup_size=8,
    devices=("vulkan",),
    vulkan_device_patterns=("llvmpipe",),
)

VULKAN_ADRENO = Target(
    name="vulkan-adreno",
    kind="vulkan",
    description="Qualcomm Adreno GPUs",
    gpu="adreno",
    precisions=_PRECISIONS,
    max_storage_buffer_bytes=_STORAGE_BUFFER_BYTES,
    subgroup_size=64,
    has_int64=False,
    devices=("vulkan",),
    vulkan_device_patterns=("adreno",),
)

VULKAN_MALI = Target(
    name="vulkan-mali",
    kind="vulkan",
    description="ARM Mali GPUs of the Valhall generations (G57, G77 and later)",
    gpu="valhall4",
    precisions=_PRECISIONS,
    max_storage_buffer_bytes=_STORAGE_BUFFER_BYTES,
    subgroup_size=16,
    has_int64=False,
    devices=("vulkan",),
    # Valhall and its successor run 16 lanes; the older Bifrost parts (G31 to G76) run 4 or 8.
    vulkan_device_patterns=(
        "mali-g57",
        "mali-g68",
        "mali-g77",
        "mali-g78",
        "mali-g310",
        "mali-g510",
        "mali-g610",
        "mali-g615",
        "mali-g620",
        "mali-g625",
        "mali-g710",
        "mali-g715",
        "mali-g720",
        "mali-g725",
        "immortalis",
    ),
)
