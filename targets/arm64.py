"""64-bit ARM phones and boards.

The code is the same for Android and for other Linux systems, because modules are embedded ELF
files that call nothing outside themselves. There is no fallback inside one module: a CPU
without a feature named here dies by SIGILL, so the features are checked before a run.
"""

from __future__ import annotations

from .target import Target

__all__ = ["ARM64", "ARM64_I8MM"]

_TRIPLE = "aarch64-none-linux-android34"

ARM64 = Target(
    name="arm64",
    kind="cpu",
    description="64-bit ARM since 2018: armv8.2-a with dot products (Cortex-A55/A75 and later)",
    triple=_TRIPLE,
    features=("dotprod",),
    precisions=("f32", "int8", "int8-weights", "int4-weights"),
    devices=("qemu",),
)

ARM64_I8MM = Target(
    name="arm64-i8mm",
    kind="cpu",
    description="64-bit ARM since 2021: armv8.6-a with int8 and bf16 matrix products "
    "(Cortex-A510/A710/X2 and later)",
    triple=_TRIPLE,
    features=("dotprod", "i8mm", "bf16", "fp16fml", "fullfp16"),
    precisions=("f32", "bf16", "int8", "int8-weights", "int4-weights"),
    devices=("qemu",),
)
