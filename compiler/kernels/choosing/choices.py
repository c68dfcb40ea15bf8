"""From times to choices, and from choices to an engine.

Law: modules of a bundle share one copy of each packed weight, so how a weight is packed follows
from precision, depth, outputs and zeros, never from the rows. The packing is the one that is best
over all rows that were measured; within it the rows of a block follow the rows of the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from ..engines.base import Engine
from ..engines.registry import by_label, engine_for
from ..product import ProductShape
from ..sparse_choice import SparseEngine, sparse_by_label
from ..sparse_gpu import SparseLanes
from .labels import DENSE, GATHERED, LINALG, SPARSE, packing_of, stored_by_label
from .problem import Problem
from .table import Times
from .zeros import Zeros

__all__ = [
    "Choices",
    "choose",
    "chosen_engine",
    "chosen_for_codes",
    "chosen_for_zeros",
    "is_measured",
    "narrowed",
]

Choices = Mapping[str, str]
"""``"f32 384x1536"`` (depth x outputs) to a packing, ``"f32 128x384x1536"`` to a label; with the
label of what is zero behind it, where something is."""


def choose(measured: Mapping[Problem, Times]) -> dict[str, str]:
    """The choices that follow from what was measured on one CPU."""
    weights: dict[str, dict[Problem, Times]] = {}
    for problem, times in sorted(measured.items()):
        weights.setdefault(_weight(problem), {})[problem] = times
    choices = {}
    for weight, by_rows in weights.items():
        packing = _packing(by_rows)
        if packing is None:
            continue
        choices[weight] = packing
        for problem, times in by_rows.items():
            choices[_exact(problem)] = _fastest(problem, times, packing)
    return choices


def narrowed(
    choices: Choices, precisions: Iterable[str], weights: Iterable[tuple[int, ...]]
) -> dict[str, str]:
    """Those that a model may need: of its precisions, and of a depth that its weights have."""
    depths = {str(size) for shape in weights for size in shape}
    wanted = frozenset(precisions)
    found = {}
    for key, label in choices.items():
        precision, sizes, *_ = key.split(" ")
        if precision in wanted and sizes.split("x")[-2] in depths:
            found[key] = label
    return dict(sorted(found.items()))


def is_measured(choices: Choices, problem: Problem) -> bool:
    """Whether this very product was measured."""
    return _exact(problem) in choices


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
    problem = Problem(precision, shape.rows, shape.depth, shape.outputs)
    label = choices.get(_exact(problem), "")
    if packing_of(label) == packing and by_label(label).block_rows % engine.row_multiple == 0:
        return by_label(label)
    whole = math.ceil(shape.rows / engine.row_multiple) * engine.row_multiple
    return type(engine)(min(engine.blocks[engine.tiles], whole), engine.tiles)


def chosen_for_codes(
    choices: Choices, features: Iterable[str], precision: str, shape: ProductShape
) -> Engine | None:
    """The engine for a product by stored codes, as measured with these very rows; else None."""
    problem = Problem(precision, shape.rows, shape.depth, shape.outputs)
    engine = stored_by_label(choices.get(_exact(problem), ""))
    return engine if engine and frozenset(features).issuperset(engine.features) else None


def chosen_for_zeros(
    choices: Choices, precision: str, shape: ProductShape, zeros: Zeros
) -> SparseEngine | Literal["dense", "gathered"] | None:
    """How a weight with zeros is multiplied fastest, as measured; None where nobody did.

    The engine of a sparse product has the rows of ``shape``.
    """
    problem = Problem(precision, shape.rows, shape.depth, shape.outputs, zeros.panel, zeros.kept)
    packing = choices.get(_weight(problem))
    if packing in (DENSE, GATHERED):
        return "dense" if packing == DENSE else "gathered"
    if packing is None or packing_of(packing, problem) != packing:
        return None
    engine = sparse_by_label(packing.removeprefix(SPARSE))
    if isinstance(engine, SparseLanes) or engine.precision != precision:
        return None
    if isinstance(engine, Engine):
        return type(engine).for_blocks(engine.tiles, engine.padded_rows(shape.rows))
    return engine


def _packing(by_rows: Mapping[Problem, Times]) -> str | None:
    """The packing whose times are closest to the best at all rows, by the geometric mean."""
    offered = [
        {packing_of(label, problem) for label in times} for problem, times in by_rows.items()
    ]
    common = set.intersection(*offered) - {None} if offered else set()
    if not common:
        return None

    def distance(packing: str) -> float:
        return sum(
            math.log(times[_fastest(problem, times, packing)] / min(times.values()))
            for problem, times in by_rows.items()
        )

    return min(sorted(filter(None, common)), key=distance)


def _fastest(problem: Problem, times: Times, packing: str) -> str:
    return min(
        (label for label in sorted(times) if packing_of(label, problem) == packing),
        key=lambda label: times[label],
    )


def _weight(problem: Problem) -> str:
    """What modules for all rows share."""
    zeros = f" {problem.zeros.label}" if problem.zeros else ""
    return f"{problem.precision} {problem.depth}x{problem.outputs}{zeros}"


def _exact(problem: Problem) -> str:
    precision, rest = _weight(problem).split(" ", 1)
    return f"{precision} {problem.rows}x{rest}"
