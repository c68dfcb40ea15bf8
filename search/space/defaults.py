"""What a space offers where nobody says otherwise: parts of a teacher."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from ...errors import UnsupportedError
from .choices import MatrixChoices

__all__ = ["default_choices"]

_DENSITIES = (1.0, 0.5, 0.25, 0.1)
_BLOCK = (4, 48)
_PRECISIONS = ("f32", "bf16", "int8")
_STEPS = (48, 64, 32, 16)
"""Sizes are whole numbers of these many units: 48, the fastest block of outputs, if it can be."""
_LENGTHS = (16, 32, 64, 128)
_RANKED = 1 << 20
"""Numbers in a table of words from which on a factorised or shorter one is worth a choice."""


def default_choices(config: Any, precisions: Collection[str] | None = None) -> dict[str, Any]:
    """Fields of an `ArchitectureSpace` for the sub-networks of a BERT of ``config``;
    ``precisions``: those that may be offered, None: all.

    Raises `UnsupportedError` where it is no BERT, or may have no precision.
    """
    if config.model_type != "bert":
        raise UnsupportedError(
            f"Architectures describe BERT, and this model is {config.model_type!r}: take a BERT."
        )
    offered = tuple(one for one in _PRECISIONS if precisions is None or one in precisions)
    if not offered:
        raise UnsupportedError(f"Matrices are offered in {', '.join(_PRECISIONS)}: allow one.")
    width, heads, ffn = config.hidden_size, config.num_attention_heads, config.intermediate_size
    widths = _widths(width)
    fitting = tuple(
        count for count in range(1, heads + 1) if all(size % count == 0 for size in widths)
    )
    units, least = _parts(ffn), (fitting[1:] or fitting)[0] * (width // heads)
    densities = _densities((least, widths[0]), (units[0], widths[0]))
    matrix = MatrixChoices(precisions=offered, densities=densities)
    table = config.vocab_size
    large = table * width >= _RANKED
    rank = min(widths) * 2 // 3 // 16 * 16
    positions = config.max_position_embeddings
    return {
        "layers": tuple(range(1, config.num_hidden_layers + 1)),
        "hidden": widths,
        "heads": fitting[1:] or fitting,
        "ffn": units,
        "head_size": width // heads,
        **dict.fromkeys(("qkv", "output", "up", "down"), matrix),
        "seq_lens": tuple(n for n in _LENGTHS if n <= positions) or (positions,),
        "vocabularies": (table * 2 // 5 // 1000 * 1000, table) if table > 20000 else (table,),
        "embedding_ranks": (None, rank) if large and rank else (None,),
        "embedding_int8": (False, True) if large else (False,),
        "block": _BLOCK,
        "positions": positions,
        "types": config.type_vocab_size,
        "labels": config.num_labels,
    }


def _widths(width: int) -> tuple[int, ...]:
    """From half of a width to all of it, in five steps of whole blocks where it has them."""
    step = next((step for step in _STEPS if width % (2 * step) == 0), None)
    if step is None:
        return (width,)
    half = width // 2
    return tuple(sorted({half + half * part // 4 // step * step for part in range(5)}))


def _densities(*smallest: tuple[int, int]) -> tuple[float, ...]:
    """Those at which no matrix is left without a block, however it is turned."""
    inputs, outputs = _BLOCK
    blocks = min(
        math.ceil(a / inputs) * math.ceil(b / outputs)
        for shape in smallest
        for a, b in (shape, shape[::-1])
    )
    return tuple(density for density in _DENSITIES if round(density * blocks))


def _parts(units: int) -> tuple[int, ...]:
    """Some eighths of it, in whole blocks where it can be."""
    eighths = {max(units * part // 8, 1) for part in (1, 2, 3, 4, 6, 8)}
    step = next((step for step in _STEPS if units % step == 0), 1)
    return tuple(sorted({max(size // step, 1) * step for size in eighths}))
