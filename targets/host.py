"""This machine's CPU: its features under LLVM's names, and whether a module may run on it."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .target import Target, machine_arch

__all__ = ["host_target", "missing_features"]

_CPUINFO = Path("/proc/cpuinfo")

# /proc/cpuinfo's flag -> LLVM's feature. Only what code generation emits by itself or the
# compiler selects a kernel by: a feature named here is one a machine must have to run the
# module. AES, SHA and the like need an intrinsic nobody writes here, so naming them would only
# refuse machines that can run it.
_X86_64 = {
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "popcnt": "popcnt",
    "cx16": "cx16",
    "lahf_lm": "sahf",
    "movbe": "movbe",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "gfni": "gfni",
    "sse4a": "sse4a",
    "fma4": "fma4",
    "xop": "xop",
    "tbm": "tbm",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}

# A precision, and sets of features of which one will do.
_NARROW = {
    "bf16": (("avx512f", "avx512dq", "avx512bf16"), ("dotprod", "bf16")),
    "int8": (
        ("avx2",),
        ("avx512f", "avx512vnni"),
        ("avx512f", "amx-tile", "amx-int8"),
        ("dotprod",),
    ),
    # Weights alone are narrow: what multiplies f32 will do.
    "int8-weights": (("avx2", "fma"), ("avx512f",), ("dotprod",)),
    "int4-weights": (("avx2", "fma"), ("avx512f",), ("dotprod",)),
}

# Linux hands out the tile registers on request: arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA.
_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA = 158, 0x1023, 18

# SVE stays out: the code generated here has fixed-length vectors, which NEON serves.
_AARCH64 = {
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "asimdhp": "fullfp16",
    "asimdfhm": "fp16fml",
    "asimdrdm": "rdm",
    "fcma": "complxnum",
    "jscvt": "jsconv",
    "frint": "fptoint",
}

_FEATURES = {"x86_64": _X86_64, "aarch64": _AARCH64}

# Every CPU of the architecture has these, whatever the kernel reports.
_BASELINE = {
    "x86_64": frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "x87"}),
    "aarch64": frozenset({"fp-armv8", "neon"}),
}


def _kernel_flags() -> frozenset[str]:
    """The flags that all of this machine's cores have (big and little cores may differ)."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    cores = [
        frozenset(value.split())
        for line in text.splitlines()
        for key, _, value in [line.partition(":")]
        if key.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*cores) if cores else frozenset()


def _machine_features() -> tuple[str, ...]:
    flags = _kernel_flags()
    table = _FEATURES.get(machine_arch(), {})
    found = tuple(feature for flag, feature in table.items() if flag in flags)
    if any(feature.startswith("amx-") for feature in found) and not _tiles_are_granted():
        return tuple(feature for feature in found if not feature.startswith("amx-"))
    return found


@functools.cache
def _tiles_are_granted() -> bool:
    """Whether a process here may use AMX tiles; a sandbox may forbid what the CPU can do."""
    if sys.platform != "linux" or machine_arch() != "x86_64":
        return False
    request = ctypes.CDLL(None, use_errno=True).syscall
    return int(request(_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA)) == 0


def _precisions(features: Iterable[str]) -> tuple[str, ...]:
    """f32, and what there are instructions for that multiply narrower numbers."""
    present = frozenset(features)
    found = [
        precision
        for precision, ways in _NARROW.items()
        if any(present.issuperset(way) for way in ways)
    ]
    return ("f32", *found)


def host_target(features: Sequence[str] | None = None) -> Target:
    """Return the target for this very machine, its features read from the kernel now.

    ``features`` names those of another machine of this architecture in their place.

    The features are the complete list for the compiler: what is built for it runs on any
    machine that has them all, which ``missing_features`` tells.
    """
    arch = machine_arch()
    features = _machine_features() if features is None else tuple(features)
    return Target(
        name="host",
        kind="cpu",
        description=f"this machine's CPU ({arch})",
        features=features,
        precisions=_precisions(features),
        devices=("local",),
    )


def missing_features(required: Iterable[str], arch: str) -> tuple[str, ...]:
    """Return what this machine lacks to run a module for ``arch`` that needs ``required``.

    ``required`` holds LLVM feature names (a leading ``+`` is allowed). Empty means that the
    module may run here. On a machine of another architecture the answer is ``arch`` followed
    by every required feature. A feature this code cannot tell counts as missing: a refusal
    is better than an illegal instruction.
    """
    needed = tuple(dict.fromkeys(feature.removeprefix("+") for feature in required))
    if arch != machine_arch():
        return (arch, *needed)
    # A name outside the table may still be spelled as the kernel spells it ("aes").
    present = _kernel_flags().union(_machine_features(), _BASELINE.get(arch, frozenset()))
    return tuple(feature for feature in needed if feature not in present)
