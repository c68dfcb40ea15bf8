"""What can compute a product on a core: engines with their blocks, and IREE by itself.

Where weights are zero, a candidate may leave them out: block by block, or by picking the inputs
that have weights first. Each is a few kernels in a row, with arguments of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...quantization.precisions import WEIGHT_BITS
from ..convert import convert_kernel
from ..engines.base import Engine
from ..engines.registry import ENGINES, engine_for
from ..epilogue import Epilogue
from ..executable import Kernel
from ..forms import form_for
from ..isa import Isa, isa_for
from ..picking import Pick
from ..product import ProductShape, product_kernel
from ..quantize import quantize_kernel
from ..sparse_choice import (
    SparseEngine,
    sparse_activations,
    sparse_candidates,
    sparse_kernel,
    sparse_layout,
)
from ..sparse_tiles import SparseTiles
from ..weight_format import WeightFormat
from ..weight_only import weight_only_kernel
from ..weight_rows import rows_engines
from ..words import words_kernel
from .labels import GATHERED, LINALG, SPARSE
from .problem import Numbers, Problem
from .zeros import WHOLE

__all__ = [
    "Candidate",
    "candidates_for",
    "rule_for",
    "stored_engines",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class Candidate:
    """A way to compute a product; without ``kernel`` it is `LINALG`.

    ``before`` make what the kernel reads first; of all their ``arguments`` the packed weights are
    number ``weights``. ``engine`` is that of a dense product.
    """

    label: str
    engine: Engine | None = None
    kernel: Kernel | None = None
    before: tuple[Kernel | Pick, ...] = ()
    weights: int = 1
    arguments: Callable[[Numbers], list[Array]] = lambda numbers: [
        numbers.activations,
        numbers.bias,
    ]

    @property
    def steps(self) -> tuple[Kernel | Pick, ...]:
        """What runs, in order."""
        return (*self.before, self.kernel) if self.kernel else ()


def candidates_for(features: Iterable[str], problem: Problem) -> list[Candidate]:
    """Every candidate of a core with these features (LLVM's names), the rule's choice first.

    Of each engine every block that the registers have room for, with the most rows and with as
    many as share the rows evenly. Where weights are zero, the rule's choice of a dense product
    stands for all of those.
    """
    present = frozenset(features)
    if problem.precision in WEIGHT_BITS:
        return list(_stored(present, problem))
    made: dict[str, Candidate] = {}
    chosen = rule_for(present, problem)
    others = () if problem.zeros else _engines(present, problem)
    for engine in [*([chosen] if chosen else []), *others]:
        made.setdefault(engine.label, _dense(engine, problem))
    found = list(made.values())
    if problem.zeros and chosen:
        found += [_sparse(engine, problem) for engine in _sparse_engines(chosen, present, problem)]
        if problem.panel in WHOLE:
            found.append(_gathered(chosen, problem, isa_for(present)))
    if problem.precision == "f32":
        found.append(Candidate(LINALG))
    return found


def rule_for(features: Iterable[str], problem: Problem) -> Engine | None:
    """What is taken where nothing was measured."""
    return engine_for(features, problem.precision, problem.outputs, problem.rows)


def stored_engines(features: Iterable[str], rows: int) -> Iterator[Engine]:
    """All that multiply by codes in memory."""
    present = frozenset(features)
    yield from rows_engines(present, rows)
    lanes = isa_for(present).lanes
    for precision in ("bf16", "f32"):
        yield from (
            engine
            for engine in _engines(present, Problem(precision, rows, 1, 1))
            if engine.lanes == lanes
        )


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


def _sparse_engines(
    dense: Engine, present: frozenset[str], problem: Problem
) -> Iterator[SparseEngine]:
    for engine in sparse_candidates(dense, problem.rows, present):
        layout = sparse_layout(engine, problem.outputs, problem.depth)
        if engine.precision != "f32" or layout.padded_depth == problem.depth:
            yield engine


def _dense(engine: Engine, problem: Problem) -> Candidate:
    kernel = product_kernel(engine, problem.shape, _epilogue(engine))
    return Candidate(engine.label, engine, kernel, arguments=lambda it: it.arguments(engine))


def _sparse(engine: SparseEngine, problem: Problem) -> Candidate:
    layout = sparse_layout(engine, problem.outputs, problem.depth)
    stored = layout.stored(layout.survivors(problem.mask))
    kernel = sparse_kernel(engine, problem.rows, layout, stored, _epilogue(engine))
    before: tuple[Kernel, ...] = ()
    if isinstance(engine, SparseTiles):
        form = sparse_activations(engine, problem.rows, layout)
        before = (words_kernel(form.padded_rows, form.stride, engine.element, engine.block_rows),)
    return Candidate(
        f"{SPARSE}{engine.label}",
        kernel=kernel,
        before=before,
        arguments=lambda it: it.sparse_arguments(engine),
    )


def _gathered(engine: Engine, problem: Problem, isa: Isa) -> Candidate:
    kept = int(problem.mask.any(axis=0).sum())
    shape = ProductShape(problem.rows, kept, problem.outputs)
    form = form_for(engine, problem.rows, kept)
    before: list[Kernel | Pick] = [Pick(problem.rows, problem.depth, kept)]
    if form.kind == "bf16":
        before.append(
            convert_kernel(
                problem.rows,
                kept,
                lanes=isa.lanes,
                native=isa.native_bf16,
                padded_rows=form.padded_rows,
                row_stride=form.stride,
            )
        )
    elif form.kind != "f32":
        before.append(
            quantize_kernel(
                problem.rows,
                kept,
                lanes=isa.lanes,
                form=form.kind,
                padded_rows=form.padded_rows,
                row_stride=form.stride,
            )
        )
    return Candidate(
        f"{GATHERED}_{engine.label}",
        kernel=product_kernel(engine, shape, _epilogue(engine)),
        before=tuple(before),
        weights=2,
        arguments=lambda it: it.gathered_arguments(engine),
    )


def _stored(present: frozenset[str], problem: Problem) -> Iterator[Candidate]:
    isa = isa_for(present)
    form = WeightFormat(WEIGHT_BITS[problem.precision], isa.lanes)
    made: dict[str, Candidate] = {}
    for engine in stored_engines(present, problem.rows):
        if engine.precision == "f32" and engine.row_stride(problem.depth) != problem.depth:
            continue
        kernel = weight_only_kernel(
            engine, form, problem.shape, _epilogue(engine), native_bf16=isa.native_bf16
        )

        def arguments(numbers: Numbers, engine: Engine = engine) -> list[Array]:
            return numbers.stored_arguments(engine, form)

        made.setdefault(engine.label, Candidate(engine.label, engine, kernel, arguments=arguments))
    yield from made.values()


def _epilogue(engine: SparseEngine) -> Epilogue:
    return Epilogue(accurate=engine.precision == "f32")
