"""A program and its architecture as numbers, for models that learn from them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..space.architecture import KINDS as MATRICES
from ..space.architecture import Architecture
from .dispatch import KINDS, Program

__all__ = ["feature_names", "features"]

_PRECISIONS = ("f32", "bf16", "int8")
_PRODUCTS = ("product", "sparse", "weights", "rows", "attention")
"""Kinds that multiply; of these sums are kept by precision."""

_WHOLE = (
    *("threads", "seq_len", "layers", "hidden", "heads", "ffn"),
    *("params", "flops", "stored_bytes", "dispatches", "moved_bytes"),
    *(f"{kind}_density" for kind in MATRICES),
)


@lru_cache(maxsize=1)
def feature_names() -> tuple[str, ...]:
    """Names of the numbers, in order."""
    sums = [
        f"{kind}.{precision}.{what}"
        for kind in _PRODUCTS
        for precision in _PRECISIONS
        for what in ("count", "flops", "bytes")
    ]
    rest = [f"{kind}.{what}" for kind in _others() for what in ("count", "bytes")]
    return (*_WHOLE, *sums, *rest)


def features(program: Program, architecture: Architecture) -> NDArray[np.float64]:
    """[len(feature_names())]: sizes of the whole model, then for each kind of dispatch (and of
    products each precision) how many there are, their flops and their bytes."""
    a, costs = architecture, architecture.costs()
    depth = len(a.layers)
    found: dict[str, float] = {
        "threads": program.threads,
        "seq_len": a.seq_len,
        "layers": depth,
        "hidden": a.hidden,
        "heads": sum(layer.heads for layer in a.layers) / depth,
        "ffn": sum(layer.ffn for layer in a.layers) / depth,
        "params": costs.params,
        "flops": costs.flops,
        "stored_bytes": costs.bytes,
        "dispatches": len(program.dispatches),
        "moved_bytes": program.bytes,
    }
    for kind in MATRICES:
        densities = [layer.form(kind).density for layer in a.layers]
        found[f"{kind}_density"] = sum(densities) / depth
    for one in program.dispatches:
        multiplies = one.kind in _PRODUCTS
        name = f"{one.kind}.{one.precision}" if multiplies else one.kind
        terms = {"count": 1, "flops": one.flops, "bytes": one.bytes}
        for what, number in terms.items():
            found[f"{name}.{what}"] = found.get(f"{name}.{what}", 0.0) + number
    return np.array([found.get(name, 0.0) for name in feature_names()], np.float64)


def _others() -> list[str]:
    return [kind for kind in KINDS if kind not in _PRODUCTS]
