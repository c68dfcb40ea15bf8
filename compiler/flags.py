"""The one place that turns a target and options into flags of IREE's compiler."""

from __future__ import annotations

from ..errors import InputError
from ..targets import Target

__all__ = ["FUSIONS", "NO_DATA_TILING", "STOCK_SETTINGS", "iree_flags"]

FUSIONS = ("auto", "stock", "none")
"""``auto``: canao's patterns; ``stock``: IREE's best untuned setting without them; ``none``:
auto's product path with nothing fused into it, and IREE's own fusion off where a flag allows."""

_DATA_TILING = "--iree-opt-data-tiling"
NO_DATA_TILING = "--iree-opt-data-tiling=false"
_NO_AGGRESSIVE = "--iree-dispatch-creation-enable-aggressive-fusion=false"
# IREE's attention loop has no form on Vulkan and is slow on a CPU; its own passes can take it
# apart. They do nothing where a pattern of ours has left no attention.
_DECOMPOSE_ATTENTION = (
    "--iree-preprocessing-pass-pipeline=builtin.module(util.func("
    "iree-linalg-ext-convert-attention-to-online-attention,iree-linalg-ext-decompose-attention))"
)
# O2's aggressive fusion, and kernels that keep a head of attention or a block of sums at hand,
# put more on the stack than the default limit allows.
_STACK = "--iree-llvmcpu-stack-allocation-limit=131072"

STOCK_SETTINGS: dict[str, tuple[str, ...]] = {
    "O0": (_DATA_TILING,),
    "O2": ("--iree-opt-level=O2", _DATA_TILING, _STACK),
    "O2-no-aggressive-fusion": ("--iree-opt-level=O2", _DATA_TILING, _NO_AGGRESSIVE),
}
"""Untuned settings of IREE on a CPU; which is fastest depends on the shapes. ``O0`` is what
``--fusion stock`` uses: it was the fastest of the three in docs/benchmarks/peers.md."""


def iree_flags(target: Target, *, fusion: str = "auto") -> tuple[str, ...]:
    """Flags for ``target``. Raises `InputError` for an unknown ``fusion``."""
    if fusion not in FUSIONS:
        raise InputError(f"Unknown fusion {fusion!r}: choose one of {', '.join(FUSIONS)}.")
    flags = _vulkan_flags(target) if target.kind == "vulkan" else _cpu_flags(target)
    if fusion == "none":
        flags += (
            _NO_AGGRESSIVE,
            "--iree-dispatch-creation-fuse-multi-use=false",
        )
    return flags


def _cpu_flags(target: Target) -> tuple[str, ...]:
    flags = [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        _DATA_TILING,
        _DECOMPOSE_ATTENTION,
        _STACK,
    ]
    if target.triple:
        flags.append(f"--iree-llvmcpu-target-triple={target.triple}")
    # The features are spelled out, never "host": the bundle says which ones it needs.
    flags.append(f"--iree-llvmcpu-target-cpu={target.cpu or 'generic'}")
    if target.features:
        features = ",".join(f"+{feature}" for feature in target.features)
        flags.append(f"--iree-llvmcpu-target-cpu-features={features}")
    return tuple(flags)


def _vulkan_flags(target: Target) -> tuple[str, ...]:
    return (
        "--iree-hal-target-device=vulkan",
        f"--iree-vulkan-target={target.gpu}",
        _DECOMPOSE_ATTENTION,
    )
