"""Looked-up rows against NumPy: to the bit, but for codes, whose products round with sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.embedding import Term, embedding_kernel, embedding_reference
from canao.compiler.kernels.executable import Kernel

from ...profiles import compiling
from .batch import PLACES, run_batch

_Array = np.ndarray[Any, Any]
SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0]


@st.composite
def terms_of(draw: Any, rows: int) -> Term:
    period = draw(st.sampled_from([n for n in range(1, rows + 1) if rows % n == 0]))
    codes = draw(st.booleans())
    if draw(st.booleans()):
        return Term(table_rows=draw(st.integers(1, 50)), period=period, codes=codes)
    first, behind = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    table_rows = first + period + behind
    return Term(table_rows=table_rows, period=period, first=first, codes=codes)


def arguments_of(terms: list[Term], width: int, rng: np.random.Generator) -> list[_Array]:
    """Tables with special values; a tenth of the ids lies outside them."""
    found: list[_Array] = []
    for term in terms:
        shape = (term.table_rows, width)
        if term.codes:
            found.append(rng.integers(-128, 128, shape).astype(np.int8))
            found.append((rng.standard_normal(shape[0]) * 0.01).astype(np.float32))
        else:
            table = rng.standard_normal(shape).astype(np.float32)
            special = rng.random(shape) < 0.1
            table[special] = rng.choice(np.array(SPECIAL, np.float32), special.sum())
            found.append(table)
        if term.first is None:
            ids = rng.integers(0, term.table_rows, term.period)
            wrong = rng.random(term.period) < 0.1
            ids[wrong] = rng.choice([-1, term.table_rows, -(2**31), 2**31 - 1], wrong.sum())
            found.append(ids.astype(np.int32))
    return found


@dataclass(frozen=True)
class Case:
    """A kernel's parameters, and its numbers by a seed."""

    rows: int
    terms: list[Term]
    width: int
    lanes: int
    workgroups: int | None
    seed: int

    def kernel(self) -> Kernel:
        return embedding_kernel(
            self.rows, self.width, self.terms, lanes=self.lanes, workgroups=self.workgroups
        )

    def arguments(self) -> list[_Array]:
        return arguments_of(self.terms, self.width, np.random.default_rng(self.seed))

    def check(self, arguments: list[_Array], found: _Array) -> None:
        with np.errstate(all="ignore"):
            expected = embedding_reference(self.rows, self.terms, arguments)
            size = sum(
                np.abs(embedding_reference(self.rows, [term], part))
                for term, part in zip(self.terms, _parts(self.terms, arguments), strict=True)
            )
        if any(term.codes for term in self.terms):
            finite = np.isfinite(size)
            difference = np.abs(found[finite] - expected[finite])
            assert (difference <= 3e-7 * size[finite]).all()
            found, expected = found[~finite], expected[~finite]
        np.testing.assert_array_equal(found, expected)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = draw(st.integers(1, 40))
    return Case(
        rows=rows,
        terms=draw(st.lists(terms_of(rows), min_size=1, max_size=4)),
        width=draw(st.integers(1, 150)),
        lanes=draw(st.sampled_from([4, 8, 16])),
        workgroups=draw(st.sampled_from([None, 1, 3])),
        seed=draw(st.integers(0, 2**31)),
    )


@pytest.mark.parametrize("name", PLACES)
@compiling(3)
@given(st.lists(cases(), min_size=3, max_size=3))
def test_any_sum_of_rows(name: str, drawn: list[Case]) -> None:
    batch = [(case.kernel(), case.arguments()) for case in drawn]
    results = run_batch(batch, targets.get(name))
    for case, (_, arguments), found in zip(drawn, batch, results, strict=True):
        case.check(arguments, found)


def _parts(terms: list[Term], arguments: list[_Array]) -> list[list[_Array]]:
    """The arguments of each term."""
    given_ = iter(arguments)
    return [[next(given_) for _ in term.operands(0, 1)] for term in terms]


def test_by_rows_a_matrix_is_read_where_it_is_written() -> None:
    matrix = Term(table_rows=8, period=8, first=0)
    words = Term(table_rows=8, period=8)
    positions = Term(table_rows=8, period=4, first=0)
    kernel = embedding_kernel(8, 16, [words, matrix, positions], lanes=4)
    assert kernel.by_rows is not None
    assert kernel.by_rows.operands == {"T1", "Y"}


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ([], "a term at least"),
        ([Term(table_rows=9, period=3)], "period of 3"),
        ([Term(table_rows=9, period=4, first=6)], "from 6 on"),
        ([Term(table_rows=9, period=4, first=-1)], "from -1 on"),
    ],
)
def test_what_is_no_sum_is_refused(terms: list[Term], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        embedding_kernel(8, 16, terms, lanes=4)
