"""What element-wise kernels must know of a core: how wide its vectors are, and bf16 rounding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Isa", "isa_for"]


@dataclass(frozen=True)
class Isa:
    """``lanes``: f32 values in a vector; ``native_bf16``: an instruction rounds f32 to bf16."""

    lanes: int
    native_bf16: bool = False


def isa_for(features: Iterable[str]) -> Isa:
    """The widest vectors that a core with these features (LLVM's names) has; NEON's without."""
    present = frozenset(features)
    if "avx512f" in present:
        return Isa(16, "avx512bf16" in present)
    return Isa(8 if "avx2" in present else 4)
