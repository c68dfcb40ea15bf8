"""What a device has to do for an architecture: its program's work by group, and its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..program.dispatch import Dispatch, Program
    from ..space.architecture import Architecture

__all__ = ["TERMS", "Workload", "group_of", "kind_of", "levels_of", "workload_of"]

TERMS = ("launches", "operations", "bytes")
"""What a dispatch is charged for: itself, 1e9 operations, 1e6 bytes read and written."""

_UNITS = (1.0, 1e9, 1e6)
_CACHED = 8192


@dataclass(frozen=True, eq=False, kw_only=True)
class Workload:
    """``terms``: by group of dispatches, its `TERMS`; ``features``: those of `program.features`;
    ``position``: sizes above 0 by name, which say where it lies among all architectures."""

    terms: Mapping[str, tuple[float, ...]]
    features: NDArray[Any]
    position: Mapping[str, float]

    @classmethod
    def of(cls, program: Program, architecture: Architecture) -> Workload:
        """From the dispatches that run, and the architecture they are of."""
        from ..program.features import features
        from .traits import sizes

        terms: dict[str, NDArray[Any]] = {}
        for one in program.dispatches:
            group = group_of(one)
            row = np.array([1.0, one.flops, one.bytes]) / _UNITS
            terms[group] = terms.get(group, 0.0) + row
        total = np.sum(list(terms.values()), axis=0)
        return cls(
            terms={group: tuple(map(float, row)) for group, row in sorted(terms.items())},
            features=features(program, architecture),
            position={**sizes(architecture), **dict(zip(TERMS, map(float, total), strict=True))},
        )


def group_of(dispatch: Dispatch) -> str:
    """Dispatches that are charged alike: ``kind/precision/engine``; those that multiply nothing
    have no engine."""
    engine = dispatch.detail.get("engine")
    return f"{dispatch.kind}/{dispatch.precision}" + (f"/{engine}" if engine else "")


def levels_of(group: str) -> tuple[str, ...]:
    """The families of a group, the widest first, itself at last: ``kind``, ``kind/precision``."""
    parts = group.split("/")
    return tuple("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def kind_of(group: str) -> str:
    """The kind of a group's dispatches."""
    return group.partition("/")[0]


@lru_cache(maxsize=_CACHED)
def workload_of(architecture: Architecture, target: str, threads: int) -> Workload:
    """The workload of the program that the compiler would make. Raises `UnsupportedError` where
    the program of a target cannot be derived."""
    from ..program.derive import program_of

    return Workload.of(program_of(architecture, target=target, threads=threads), architecture)
