"""From times to choices, and from choices to an engine.

Law: modules of a bundle share one copy of each packed weight, so how a weight is packed follows
from precision, depth and outputs, never from the rows. The packing is the one that is best over
all rows that were measured; within it the rows of a block follow the rows of the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from ..engines.base import Engine
from ..engines.registry import by_label, engine_for
from ..product import ProductShape
from .candidates import LINALG, packing_of
from .problem import Problem
from .table import Times

__all__ = ["Choices", "choose", "chosen_engine", "is_measured", "narrowed"]

Choices = Mapping[str, str]
"""``"f32 384x1536"`` (depth x outputs) to a packing, ``"f32 128x384x1536"`` to a label."""


def choose(measured: Mapping[Problem, Times]) -> dict[str, str]:
    """The choices that follow from what was measured on one CPU."""
    weights: dict[tuple[str, int, int], dict[Problem, Times]] = {}
    for problem, times in sorted(measured.items()):
        key = (problem.precision, problem.depth, problem.outputs)
        weights.setdefault(key, {})[problem] = times
    choices = {}
    for (precision, depth, outputs), by_rows in weights.items():
        packing = _packing(list(by_rows.values()))
        if packing is None:
            continue
        choices[f"{precision} {depth}x{outputs}"] = packing
        for problem, times in by_rows.items():
            choices[_exact(precision, problem.shape)] = _fastest(times, packing)
    return choices


def narrowed(
    choices: Choices, precisions: Iterable[str], weights: Iterable[tuple[int, ...]]
) -> dict[str, str]:
    """Those that a model may need: of its precisions, and of a depth that its weights have."""
    depths = {str(size) for shape in weights for size in shape}
    wanted = frozenset(precisions)
    found = {}
    for key, label in choices.items():
        precision, _, sizes = key.partition(" ")
        if precision in wanted and sizes.split("x")[-2] in depths:
            found[key] = label
    return dict(sorted(found.items()))


def is_measured(choices: Choices, precision: str, shape: ProductShape) -> bool:
    """Whether this very product was measured."""
    return _exact(precision, shape) in choices


def chosen_engine(
    choices: Choices, features: Iterable[str], precision: str, shape: ProductShape
) -> Engine | Literal["linalg"] | None:
    """The engine for a product as measured, else by the registry's rule; "linalg" where IREE's
    own product was faster; None where the core has no engine for the precision.
    """
    present = frozenset(features)
    rule = engine_for(present, precision, shape.outputs, shape.rows)
    packing = choices.get(f"{precision} {shape.depth}x{shape.outputs}")
    if packing is None:
        return rule
    if packing == LINALG:
        return "linalg" if precision == "f32" else rule
    if packing_of(packing) != packing:
        return rule
    engine = by_label(packing)
    if engine.precision != precision or not present.issuperset(engine.features):
        return rule
    label = choices.get(_exact(precision, shape), "")
    if packing_of(label) == packing and by_label(label).block_rows % engine.row_multiple == 0:
        return by_label(label)
    whole = math.ceil(shape.rows / engine.row_multiple) * engine.row_multiple
    return type(engine)(min(engine.blocks[engine.tiles], whole), engine.tiles)


def _packing(measured: list[Times]) -> str | None:
    """The packing whose times are closest to the best at all rows, by the geometric mean."""
    offered = [{packing_of(label) for label in times} for times in measured]
    common = set.intersection(*offered) - {None} if offered else set()
    if not common:
        return None

    def distance(packing: str) -> float:
        return sum(
            math.log(times[_fastest(times, packing)] / min(times.values())) for times in measured
        )

    return min(sorted(filter(None, common)), key=distance)


def _fastest(times: Times, packing: str) -> str:
    return min(
        (label for label in sorted(times) if packing_of(label) == packing),
        key=lambda label: times[label],
    )


def _exact(precision: str, shape: ProductShape) -> str:
    return f"{precision} {shape.rows}x{shape.depth}x{shape.outputs}"
