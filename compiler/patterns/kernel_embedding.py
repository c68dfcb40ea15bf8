"""Look-ups in tables, and what is added to them, become one kernel.

Before::

    %w = torch.aten.embedding %words, %ids           f32, or codes times a scale for each row
    %t = torch.aten.embedding %types, %kinds
    %p = torch.aten.embedding %positions, (0, 1, 2, ...)
    %y = (%w + %t) + %p

After: ``%y = kernel(%words, [%scales,] %ids, %types, %kinds, %positions)``.

Law: a + b = b + a; terms are added in their order. A row is read where it stands, positions are
read as the slice that they are, and the rows can be gone on with (`fuse_rows`). One addend may be
no look-up but a product, say. Where no index depends on an input, the sum is a constant: it stays
as it is, and IREE makes it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from iree.compiler import ir

from ..kernels.embedding import Term, embedding_kernel
from ..kernels.forms import Form, plain
from ..kernels.isa import Isa, isa_for
from .base import Pattern, PatternContext, Stage, operations
from .constants import constant_array, depends_on_inputs
from .embedding_sums import LookUp, Sum, period_of, sums_of_look_ups
from .kernel_calls import KernelCalls, rows_and_width
from .planned import Planned, plan_op
from .torch_ops import TorchBuilder, tensor_shape, tensor_type

__all__ = ["KernelEmbedding", "PlannedEmbedding"]

_INT32 = 3  # torch's number for the type


class KernelEmbedding(Pattern):
    """See the module's docstring."""

    name = "canao.kernel_embedding"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # a kernel is code for one instruction set
    after = ("canao.quantize_embeddings",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every sum that looks rows up by an input."""
        sums = sums_of_look_ups(module)
        known = [op for found in sums for one in found.look_ups for op in one.operations]
        for op in operations(module, "torch.aten.embedding"):
            if op not in known and depends_on_inputs(op.operands[1]):
                reason = "because its table is no weight of f32, or not of two dimensions"
                context.fall_back(op, "embedding", reason)
        chosen = [
            found for found in sums if any(depends_on_inputs(one.ids) for one in found.look_ups)
        ]
        for found in chosen:
            context.kernels["embedding"] += 1
            _replace(context, found)
        return len(chosen)


@dataclass(frozen=True, kw_only=True)
class PlannedEmbedding(Planned):
    """Operands: those of each term in turn, as the kernel's. The term ``matrix`` is no table but
    activations."""

    isa: Isa
    rows: int
    width: int
    terms: tuple[Term, ...]
    matrix: int | None = None

    def wants(self) -> Sequence[Form | None]:
        """See `Planned.wants`."""
        wanted: list[Form | None] = []
        for place, term in enumerate(self.terms):
            if place == self.matrix:
                wanted.append(plain(term.period, self.width))
            else:
                wanted += [None] * len(term.operands(place, self.width))
        return wanted

    def offers(self, wanted: Sequence[Form]) -> Sequence[Form]:
        """The plain matrix."""
        return [plain(self.rows, self.width)]

    def emit(
        self, calls: KernelCalls, operands: Sequence[Sequence[Any]], forms: Sequence[Form]
    ) -> Mapping[Form, Sequence[Any]]:
        """See `Planned.emit`."""
        (form,) = forms
        kernel = embedding_kernel(self.rows, self.width, self.terms, lanes=self.isa.lanes)
        arguments = [
            value if wanted is not None else calls.builtin(value)
            for (value,), wanted in zip(operands, self.wants(), strict=True)
        ]
        return {form: calls.call(kernel, arguments)}


def _replace(context: PatternContext, found: Sum) -> None:
    shape, _ = tensor_shape(found.total)
    rows, width = rows_and_width(found.total)
    last = found.total.owner.operation
    layers = [op.location for one in found.look_ups for op in one.operations]
    location = ir.Location.fused([*layers, last.location])
    terms: list[Term] = []
    operands: list[Any] = []
    matrix = None
    with ir.InsertionPoint(last):
        build = TorchBuilder(location)
        for value, one in found.addends:
            period = period_of(tensor_shape(value)[0], shape)
            assert period is not None  # or it were no addend
            if one is None:
                matrix = len(terms)
                terms.append(Term(table_rows=period, period=period, first=0))
                operands.append(value)
            else:
                term = _term(one, period)
                terms.append(term)
                operands += _operands(build, one, term)
        planned = PlannedEmbedding(
            isa=isa_for(context.target.features),
            rows=rows,
            width=width,
            terms=tuple(terms),
            matrix=matrix,
        )
        result = plan_op(context, planned, operands, found.total.type, location)
    found.total.replace_all_uses_with(result)
    for op in reversed(found.operations):
        op.erase()
    for op in (op for one in found.look_ups for op in reversed(one.operations)):
        op.erase()


def _term(one: LookUp, period: int) -> Term:
    """How the kernel finds the rows of a look-up: known ones without an index tensor."""
    table_rows, _ = tensor_shape(one.table)[0]
    codes = one.scales is not None
    ids = constant_array(one.ids)
    if ids is not None:
        places = ids.reshape(-1)
        first, last = int(places[0]), int(places[-1])
        if first >= 0 and last < table_rows:
            if (places == first).all():
                return Term(table_rows=table_rows, period=1, first=first, codes=codes)
            if (np.diff(places) == 1).all():
                return Term(table_rows=table_rows, period=period, first=first, codes=codes)
    return Term(table_rows=table_rows, period=period, codes=codes)


def _operands(build: TorchBuilder, one: LookUp, term: Term) -> list[Any]:
    """The table, the scales and the indices, as far as the term has them."""
    found = [one.table, *([one.scales] if one.scales is not None else [])]
    if term.first is not None:
        return found
    dims, element = tensor_shape(one.ids)
    ids = one.ids
    if element != "si32":
        no = build.bool(False)
        cast = [ids, build.int(_INT32), no, no, build.none()]
        ids = build.op("aten.to.dtype", cast, tensor_type(dims, "si32"))
    if dims != (term.period,):
        shape = [term.period]
        ids = build.op("aten.view", [ids, build.ints(shape)], tensor_type(shape, "si32"))
    return [*found, ids]
