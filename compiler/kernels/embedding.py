"""Rows of tables, looked up and added.

::

    y[r] = t0[i0[r]] + t1[i1[r]] + ...        from left to right, in f32

A term is a table whose rows are taken by an index tensor, or a constant slice of one (positions);
with period p, row r takes what stands at r mod p, as a batch of texts does with its positions. A
matrix of activations is a slice that is all of its table. A table is f32, or int8 with one scale
for each of its rows: then ``t[i] = scale[i] * codes[i]``, and it is rounded once with what it is
added to (only of two such terms at the start is the first rounded alone).

An index outside its table, negative ones too, reads the table's last row: nothing else is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .emitter import Emitter
from .executable import Kernel, Operand, Shared
from .rows import each_row, groups_for, rows_of, sweep, width_for
from .values import Buffer, Value

__all__ = ["Term", "embedding_kernel", "embedding_reference"]

_Array = np.ndarray[Any, Any]
_Addend = tuple[Value, Value | None]


@dataclass(frozen=True, kw_only=True)
class Term:
    """A table of ``table_rows``. Row r of the sum takes the row that stands at r mod ``period``
    of an index tensor or, where ``first`` is given, ``first`` + r mod ``period``."""

    table_rows: int
    period: int
    first: int | None = None
    codes: bool = False
    """Whether it is int8, with scales."""

    @property
    def label(self) -> str:
        """All of it, as part of a kernel's name."""
        which = "ids" if self.first is None else f"rows{self.first}"
        kind = "q" if self.codes else ""
        return f"{kind}{which}of{self.table_rows}p{self.period}"

    def operands(self, place: int, width: int) -> list[Operand]:
        """T and, as the term has them, S and I, numbered by the term's place in the sum."""
        shape = (self.table_rows, width)
        found = [Operand(f"T{place}", shape, "i8" if self.codes else "f32")]
        found += [Operand(f"S{place}", (self.table_rows,), "f32")] if self.codes else []
        found += [Operand(f"I{place}", (self.period,), "i32")] if self.first is None else []
        return found

    def is_matrix(self, rows: int) -> bool:
        """Whether row r of the sum of ``rows`` takes row r, of so many."""
        return self.first == 0 and self.table_rows == self.period == rows


def embedding_kernel(
    rows: int,
    width: int,
    terms: Sequence[Term],
    *,
    lanes: int,
    workgroups: int | None = None,
) -> Kernel:
    """Inputs, term by term (n = 0, 1, ...): Tn [table_rows, width] f32, or i8 and Sn
    [table_rows] f32; In [period] i32 unless the rows are constant. Output Y [rows, width] f32.

    Raises ValueError for no term, a period that does not divide ``rows``, or a slice that reaches
    beyond its table.
    """
    _check(rows, terms)
    groups = workgroups or groups_for(rows)

    def one(e: Emitter, buffers: dict[str, Buffer], shared: Shared, row: Value) -> None:
        del shared
        found = [_Found.of(e, buffers, n, term, rows, row) for n, term in enumerate(terms)]

        def step(column: Value, _: list[Value], __: int) -> list[Value]:
            total = _summed(e, [term.load(e, column, width_for(width, lanes)) for term in found])
            e.store_vector(total, buffers["Y"], [row, column])
            return []

        sweep(e, width, lanes, step)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with rows_of(e, group, rows, groups) as row:
            one(e, buffers, Shared(e), row)

    labels = "_".join(term.label for term in terms)
    matrices = [f"T{n}" for n, term in enumerate(terms) if term.is_matrix(rows)]
    return Kernel(
        name=f"embedding_{labels}_{rows}x{width}_by{lanes}_in{groups}",
        inputs=tuple(o for n, term in enumerate(terms) for o in term.operands(n, width)),
        outputs=(Operand("Y", (rows, width), "f32"),),
        workgroups=groups,
        body=body,
        by_rows=each_row(rows, [*matrices, "Y"], one),
    )


@dataclass(frozen=True)
class _Found:
    """The row of a table that a term adds, and its scale where the table has some."""

    table: Buffer
    row: Value
    scale: Value | None

    @classmethod
    def of(
        cls,
        e: Emitter,
        buffers: Mapping[str, Buffer],
        place: int,
        term: Term,
        rows: int,
        row: Value,
    ) -> _Found:
        at = row if term.period == rows else e.remainder(row, e.index(term.period))
        if term.first is None:
            # Sign-extended, a negative one is larger than any unsigned.
            at = e.cast_index(e.load(buffers[f"I{place}"], [at]), "index")
            at = e.least(at, term.table_rows - 1)
        elif term.first:
            at = e.add(at, e.index(term.first))
        scale = e.load(buffers[f"S{place}"], [at]) if term.codes else None
        return cls(buffers[f"T{place}"], at, scale)

    def load(self, e: Emitter, column: Value, width: int) -> _Addend:
        """A vector of the row, as f32, and its factor where there is one."""
        value = e.load_vector(self.table, [self.row, column], width)
        if self.scale is None:
            return value, None
        return e.to_float(e.extend(value, "i32")), e.broadcast(self.scale, width)


def _summed(e: Emitter, addends: Sequence[_Addend]) -> Value:
    """The sum from left to right. LLVM would make one operation of a product and a sum itself:
    said here, all targets do the same."""
    (total, factor), *others = addends
    for value, scale in others:
        if scale is not None:
            total = total if factor is None else e.mul(total, factor)
            total = e.fma(value, scale, total)
        else:
            total = e.add(total, value) if factor is None else e.fma(total, factor, value)
        factor = None
    return total if factor is None else e.mul(total, factor)


def _check(rows: int, terms: Sequence[Term]) -> None:
    if not terms:
        raise ValueError("an embedding has a term at least")
    for term in terms:
        if term.period < 1 or rows % term.period:
            raise ValueError(f"a period of {term.period} does not divide {rows} rows")
        if term.first is not None and not (
            0 <= term.first <= term.first + term.period <= term.table_rows
        ):
            raise ValueError(f"rows from {term.first} on are not all in {term.table_rows}")


def embedding_reference(rows: int, terms: Sequence[Term], arguments: Sequence[_Array]) -> _Array:
    """Y from the kernel's inputs in their order: to the bit where no table has codes."""
    given = iter(arguments)
    total: _Array = _taken(rows, terms[0], given)
    for before, term in pairwise(terms):
        if before is not terms[0] or term.codes:
            total = total.astype(np.float32)
        total = total + _taken(rows, term, given)
    found: _Array = total.astype(np.float32)
    return found


def _taken(rows: int, term: Term, given: Iterator[_Array]) -> _Array:
    """The rows that a term adds; of codes not yet rounded."""
    table = next(given)
    if term.codes:
        table = next(given).astype(np.float64)[:, None] * table
    if term.first is None:
        ids = next(given)
        ids = np.where((ids < 0) | (ids >= term.table_rows), term.table_rows - 1, ids)
    else:
        ids = term.first + np.arange(term.period)
    found: _Array = table[np.resize(ids, rows)]
    return found
