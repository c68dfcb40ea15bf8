"""What can compute a product on a core: engines with their blocks, and IREE by itself.

A candidate's label is its engine's (``avx512_f32_8x48``), or `LINALG`. Its *packing* is how the
weight lies in memory, which all modules that share the weight must agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ....errors import InputError
from ..engines.base import Engine
from ..engines.registry import ENGINES, by_label, engine_for
from ..epilogue import Epilogue
from ..executable import Kernel
from ..product import product_kernel
from .problem import Problem

__all__ = [
    "LINALG",
    "Candidate",
    "candidates_for",
    "linalg_program",
    "packing_of",
    "rule_for",
    "serves",
]

LINALG = "linalg"
"""The label of the product as IREE compiles it without a kernel of ours; f32 alone."""


@dataclass(frozen=True)
class Candidate:
    """A way to compute a product; without ``engine`` and ``kernel`` it is `LINALG`."""

    label: str
    engine: Engine | None = None
    kernel: Kernel | None = None


def candidates_for(features: Iterable[str], problem: Problem) -> list[Candidate]:
    """Every candidate of a core with these features (LLVM's names), the rule's choice first.

    Of each engine every block that the registers have room for, with the most rows and with as
    many as share the rows evenly.
    """
    present = frozenset(features)
    made: dict[str, Candidate] = {}
    chosen = rule_for(present, problem)
    for engine in [*([chosen] if chosen else []), *_engines(present, problem)]:
        made.setdefault(engine.label, _candidate(engine, problem))
    found = list(made.values())
    if problem.precision == "f32":
        found.append(Candidate(LINALG))
    return found


def rule_for(features: Iterable[str], problem: Problem) -> Engine | None:
    """What is taken where nothing was measured."""
    return engine_for(features, problem.precision, problem.outputs, problem.rows)


def packing_of(label: str) -> str | None:
    """How a candidate packs weights; None for a label that is no block of an engine."""
    if label == LINALG:
        return LINALG
    try:
        engine = by_label(label)
    except InputError:
        return None
    return engine.packing if engine.block_rows <= engine.blocks.get(engine.tiles, 0) else None


def serves(label: str, precision: str) -> bool:
    """Whether a label is of a candidate, and of one for this precision."""
    if label == LINALG:
        return precision == "f32"
    return packing_of(label) is not None and by_label(label).precision == precision


def _engines(present: frozenset[str], problem: Problem) -> Iterable[Engine]:
    for kind in ENGINES:
        if kind.precision != problem.precision or not present.issuperset(kind.features):
            continue
        whole = math.ceil(problem.rows / kind.row_multiple) * kind.row_multiple
        for tiles, most in kind.blocks.items():
            blocks = math.ceil(whole / most)
            even = math.ceil(whole / blocks / kind.row_multiple) * kind.row_multiple
            for rows in dict.fromkeys((min(most, whole), even)):
                yield kind(rows, tiles)


def _candidate(engine: Engine, problem: Problem) -> Candidate:
    epilogue = Epilogue(accurate=problem.precision == "f32")
    return Candidate(engine.label, engine, product_kernel(engine, problem.shape, epilogue))


def linalg_program(problem: Problem, copies: int) -> str:
    """A module with functions ``linalg_0``, ...: one for each parameter ``w0``, ... in turn.

    Inputs: activations [rows, depth] and bias [outputs]. The weights are parameters, as in a
    model, so that what IREE does to a weight is done once, at load.
    """
    rows, depth, outputs = problem.rows, problem.depth, problem.outputs
    x, w = f"tensor<{rows}x{depth}xf32>", f"tensor<{outputs}x{depth}xf32>"
    y, b = f"tensor<{rows}x{outputs}xf32>", f"tensor<{outputs}xf32>"
    maps = ", ".join(f"affine_map<(m, n, k) -> ({place})>" for place in ("m, k", "n, k", "m, n"))
    text = []
    for i in range(copies):
        text.append(
            f'util.global private @w{i} = #flow.parameter.named<"model"::"w{i}"> : {w}\n'
            f"func.func @linalg_{i}(%x: {x}, %b: {b}) -> {y} {{\n"
            f"%w = util.global.load @w{i} : {w}\n"
            "%zero = arith.constant 0.0 : f32\n"
            f"%empty = tensor.empty() : {y}\n"
            f"%start = linalg.fill ins(%zero : f32) outs(%empty : {y}) -> {y}\n"
            f"%p = linalg.matmul indexing_maps = [{maps}] ins(%x, %w : {x}, {w}) "
            f"outs(%start : {y}) -> {y}\n"
            "%r = linalg.generic {indexing_maps = [affine_map<(m, n) -> (m, n)>, "
            "affine_map<(m, n) -> (n)>, affine_map<(m, n) -> (m, n)>], "
            'iterator_types = ["parallel", "parallel"]} '
            f"ins(%p, %b : {y}, {b}) outs(%empty : {y}) {{\n"
            "^bb0(%one: f32, %two: f32, %out: f32):\n"
            "%sum = arith.addf %one, %two : f32\n"
            f"linalg.yield %sum : f32\n}} -> {y}\n"
            f"return %r : {y}\n}}\n"
        )
    return "".join(text)
