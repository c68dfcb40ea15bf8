"""Which engines there are, and which one a product takes on a core.

How weights are packed depends on the features, the precision and the number of outputs alone:
modules for several lengths share one copy of them. Only the rows of a block follow the length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from ....errors import InputError
from .amx import AmxBf16, AmxInt8
from .avx2 import Avx2F32, Avx2Int8, AvxVnniInt8
from .avx512 import Avx512Bf16, Avx512F32, Avx512Int8
from .base import Engine
from .neon import NeonF32, NeonInt8
from .neon_matrix import NeonMatrixBf16, NeonMatrixInt8

__all__ = ["ENGINES", "by_label", "engine_for", "engines"]

ENGINES: tuple[type[Engine], ...] = (
    AmxInt8,
    Avx512Int8,
    AvxVnniInt8,
    Avx2Int8,
    NeonMatrixInt8,
    NeonInt8,
    AmxBf16,
    Avx512Bf16,
    NeonMatrixBf16,
    Avx512F32,
    Avx2F32,
    NeonF32,
)
"""Of each precision the fastest first, where a core has the features of several."""

_BY_NAME = {kind.name: kind for kind in ENGINES}
_LABEL = re.compile(r"(?P<name>\w+)_(?P<rows>[1-9]\d*)x(?P<panel>[1-9]\d*)")


def engines(features: Iterable[str], precision: str) -> list[Engine]:
    """The engines that a core with these features (LLVM's names) can run, the best first."""
    present = frozenset(features)
    return [
        kind(*_largest(kind))
        for kind in ENGINES
        if kind.precision == precision and present.issuperset(kind.features)
    ]


def engine_for(features: Iterable[str], precision: str, outputs: int, rows: int) -> Engine | None:
    """The engine and block for a product; None where the core has no engine for the precision.

    ``rows`` changes ``block_rows`` only, never how weights are packed.
    """
    found = engines(features, precision)
    return fitted(type(found[0]), outputs, rows) if found else None


def fitted(kind: type[Engine], outputs: int, rows: int) -> Engine:
    """The block of an engine for a product: little padding first, then few loads."""
    tiles, most = min(kind.blocks.items(), key=lambda it: _cost(kind, it[0], it[1], outputs))
    whole = math.ceil(rows / kind.row_multiple) * kind.row_multiple
    return kind(min(most, whole), tiles)


def by_label(label: str) -> Engine:
    """The engine whose `Engine.label` this is. Raises `InputError` if there is none."""
    match = _LABEL.fullmatch(label)
    kind = _BY_NAME.get(match["name"]) if match else None
    if match is None or kind is None or int(match["panel"]) % kind.lanes:
        raise InputError(f"{label!r} is not the label of an engine.")
    return kind(int(match["rows"]), int(match["panel"]) // kind.lanes)


def _largest(kind: type[Engine]) -> tuple[int, int]:
    tiles, rows = next(iter(kind.blocks.items()))
    return rows, tiles


def _cost(kind: type[Engine], tiles: int, rows: int, outputs: int) -> float:
    """Multiplications done, padding included, and the loads that go with each."""
    panel = tiles * kind.lanes
    return math.ceil(outputs / panel) * panel * (1 + 1 / rows + 1 / tiles)
