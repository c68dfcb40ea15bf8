"""Every row and every column is visited, once where it counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.kernels.emitter import Emitter
from canao.compiler.kernels.executable import Kernel, Operand
from canao.compiler.kernels.rows import groups_for, rows_of, sweep, width_for, zero_fill
from canao.compiler.kernels.values import Buffer, Value, vector

from ...profiles import compiling
from .support import run_kernel


@compiling()
@given(st.integers(1, 70), st.integers(1, 12), st.integers(1, 200), st.integers(0, 500))
def test_rows_columns_and_padding(rows: int, groups: int, depth: int, padding: int) -> None:
    """Each element becomes its double; what lies behind it becomes zero."""
    stride = depth + padding

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with rows_of(e, group, rows, groups) as row:
            width = width_for(depth, 16)
            assert width <= depth

            def step(column: Value, carried: list[Value], seen: int) -> list[Value]:
                assert 0 <= seen < width
                x = e.load_vector(buffers["X"], [row, column], width)
                e.store_vector(e.add(x, x), buffers["Y"], [row, column])
                return [e.add(carried[0], e.number(1.0, vector(width, "f32")))]

            chains = sweep(e, depth, 16, step, [e.number(0.0, vector(width, "f32"))])
            assert 1 <= len(chains) <= 4
            zero_fill(e, buffers["Y"], row, depth)

    kernel = Kernel(
        "double",
        (Operand("X", (rows, depth), "f32"),),
        (Operand("Y", (rows, stride), "f32"),),
        groups,
        body,
    )
    x = np.arange(1, rows * depth + 1, dtype=np.float32).reshape(rows, depth)
    (found,) = run_kernel(kernel, [x])
    np.testing.assert_array_equal(found[:, :depth], 2 * x)
    assert not found[:, depth:].any()


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (31, 1), (32, 2), (128, 8), (9999, 8)])
def test_groups(rows: int, groups: int) -> None:
    assert groups_for(rows) == groups
