"""A small space and a judge of it that needs no model: sums over sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canao.search.controllers import Outcome
from canao.search.space.architecture import KINDS, Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace

__all__ = ["accuracy_of", "judged", "latency_of", "small_space"]

_WIDTH = {"f32": 1.0, "bf16": 0.6, "int8": 0.35}


def small_space(**changes: Any) -> ArchitectureSpace:
    form = MatrixChoices(precisions=("f32", "int8"), densities=(1.0, 0.5))
    fields: dict[str, Any] = {
        "layers": (1, 2, 3),
        "hidden": (64, 96, 128),
        "heads": (1, 2),
        "ffn": (64, 128, 256),
        "head_size": 16,
        "up": form,
        "down": form,
        "seq_lens": (16, 32),
        "vocabularies": (99,),
        "block": (4, 16),
        "positions": 64,
    }
    return ArchitectureSpace(**{**fields, **changes})


def latency_of(architecture: Architecture) -> float:
    """From about 0.1 to 3 ms."""
    found = 0.05
    for number in range(len(architecture.layers)):
        for kind in KINDS:
            outputs, inputs, form = architecture.matrix(number, kind)
            work = outputs * inputs * _WIDTH[form.precision] * form.density
            found += work * architecture.seq_len / 1e6 * (3 if kind == "qkv" else 1)
    return found


def accuracy_of(architecture: Architecture) -> float:
    """More of anything is better, with diminishing returns."""
    found = 60 + 8 * (1 - 0.5 ** len(architecture.layers)) + 6 * architecture.hidden / 128
    for layer in architecture.layers:
        narrow = sum(layer.form(kind).precision == "int8" for kind in KINDS)
        sparse = sum(layer.form(kind).density < 1 for kind in KINDS)
        found += layer.ffn / 256 + layer.heads / 2 - 0.1 * narrow - 0.6 * sparse
    return found + (0.0 if architecture.seq_len == 32 else -3.0)


def judged(
    space: ArchitectureSpace, values: Mapping[str, Any], limit: float | None = None
) -> Outcome:
    architecture = space.build(values)
    latency = latency_of(architecture)
    over = () if limit is None else (latency / limit - 1,)
    accuracy = accuracy_of(architecture)
    return Outcome(
        accuracy=None if limit is not None and latency > 1.5 * limit else accuracy,
        latency=latency,
        memory=architecture.costs().bytes,
        violations=over,
        reason="",
    )
