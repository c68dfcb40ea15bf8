"""What a device has to do for an architecture: its program's work by group, and its features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..program.dispatch import Dispatch, Program
    from ..space.architecture import Architecture

__all__ = [
    "SUMS",
    "TERMS",
    "Workload",
    "charges",
    "kind_of",
    "levels_of",
    "working_set",
    "workload_of",
]

TERMS = ("launches", "operations", "inputs", "outputs", "activated", "held")
"""What a dispatch is charged for: itself; 1e9 operations, blocks filled up; 1e6 numbers read, and
written, and put through an activation; 1e6 bytes that it reads again in every call (weights,
tables), as far as a cache has lost them meanwhile. Of operations and numbers, those of the busiest
thread count; what comes from memory all threads wait for."""
SUMS = ("launches", "operations", "bytes")
"""Of a whole program: dispatches, 1e9 operations, 1e6 bytes read and written."""

_HELD = TERMS.index("held")
_SHARED = slice(TERMS.index("operations"), _HELD)
_WIDTH = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}
_CACHED = 8192


@dataclass(frozen=True, eq=False, kw_only=True)
class Workload:
    """``terms``: by group of dispatches, its `TERMS`; ``features``: those of `program.features`;
    ``position``: sizes above 0 by name, which say where it lies among all architectures;
    ``meetings``: by group, the dispatches that several threads share."""

    terms: Mapping[str, tuple[float, ...]]
    features: NDArray[Any]
    position: Mapping[str, float]
    meetings: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, architecture: Architecture) -> Workload:
        """From the dispatches that run, and the architecture they are of."""
        from ..program.features import features
        from ..program.groups import groups_of
        from .traits import sizes

        terms: dict[str, NDArray[Any]] = {}
        meetings: dict[str, int] = {}
        each = program.dispatches
        for one, (group, row) in zip(each, charges(program, architecture), strict=True):
            terms[group] = terms.get(group, 0.0) + row
            if program.threads > 1 and groups_of(one) > 1:
                meetings[group] = meetings.get(group, 0) + 1
        sums = (
            len(each),
            sum(one.flops for one in each) / 1e9,
            sum(one.bytes for one in each) / 1e6,
        )
        return cls(
            terms={group: tuple(map(float, row)) for group, row in sorted(terms.items())},
            features=features(program, architecture),
            position={**sizes(architecture), **dict(zip(SUMS, map(float, sums), strict=True))},
            meetings=meetings,
        )


def charges(program: Program, architecture: Architecture) -> list[tuple[str, NDArray[Any]]]:
    """(group, `TERMS`) of each dispatch, in order.

    A group's dispatches are charged alike: ``kind/precision/engine/block``, as far as they have
    them. What reads tables by rows in no order, and multiplies nothing, is a group of its own.
    """
    from ..program.groups import busiest_share, groups_of

    whole = "whole" if architecture.embedding_rank is None else "factors"
    found = []
    for number, one in enumerate(program.dispatches):
        row = _terms(one)
        row[_SHARED] *= busiest_share(groups_of(one), program.threads)
        # Where no kernel looks up, the first of IREE's own dispatches does.
        tables = _reads_tables(one) or (number == 0 and one.kind == "elementwise" and one.rows > 1)
        found.append((f"tables/{whole}" if tables else _group(one), row))
    return found


def levels_of(group: str) -> tuple[str, ...]:
    """The families of a group, the widest first, itself at last: ``kind``, ``kind/precision``."""
    parts = group.split("/")
    return tuple("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def kind_of(group: str) -> str:
    """The kind of a group's dispatches."""
    return group.partition("/")[0]


def working_set(workload: Workload) -> float:
    """1e6 bytes that every call reads again: what a cache must hold to save the way to memory."""
    return sum(row[_HELD] for row in workload.terms.values())


@lru_cache(maxsize=_CACHED)
def workload_of(
    architecture: Architecture, target: str, threads: int, cpu_features: tuple[str, ...] = ()
) -> Workload:
    """The workload of the program that the compiler would make. Raises `UnsupportedError` where
    the program of a target cannot be derived."""
    from ..program.derive import program_of

    program = program_of(architecture, target, threads, cpu_features=cpu_features)
    return Workload.of(program, architecture)


def _reads_tables(one: Dispatch) -> bool:
    """Whether a dispatch looks rows up, and multiplies nothing."""
    return one.kind == "embedding" or (one.depth == 0 and bool(one.detail.get("embeddings")))


def _group(one: Dispatch) -> str:
    parts = [one.kind, one.precision]
    if one.kind == "elementwise" and one.rows == 1:
        parts.append("row")
    if engine := one.detail.get("engine"):
        parts.append(str(engine))
    block = one.detail.get("block")
    if block and one.kind != "attention":
        parts.append(str(block))
    return "/".join(parts)


def _terms(one: Dispatch) -> NDArray[Any]:
    written = one.rows * one.outputs
    multiplies = one.depth > 0 and one.kind != "attention"
    held = 0.0
    if multiplies:
        held = one.depth * one.outputs * one.density * _WIDTH.get(one.precision, 4)
    elif _reads_tables(one) or (one.kind == "elementwise" and one.rows > 1):
        held = 4 * written
    active = one.detail.get("activation", "none") != "none"
    return np.array(
        [
            1.0,
            one.flops * _filled(one) / 1e9,
            (one.rows * one.depth if multiplies else 0) / 1e6,
            written / 1e6,
            (written if active else 0) / 1e6,
            held / 1e6,
        ]
    )


def _filled(one: Dispatch) -> float:
    """How many times the operations are done: a block that is not full takes as long as one."""
    rows, _, outputs = str(one.detail.get("block", "")).partition("x")
    if one.kind == "attention" or not (rows.isdecimal() and outputs.isdecimal()):
        return 1.0
    tall, wide = int(rows), int(outputs)
    if not (tall and wide and one.rows and one.outputs):
        return 1.0
    up = math.ceil(one.rows / tall) * tall * math.ceil(one.outputs / wide) * wide
    return up / (one.rows * one.outputs)
