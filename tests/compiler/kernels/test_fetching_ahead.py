"""A panel's weights are asked for while the one before is multiplied: all of them, once."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.kernels.engines.avx512 import Avx512Bf16, Avx512F32, Avx512Int8
from canao.compiler.kernels.engines.base import LINE, Engine
from canao.compiler.kernels.engines.neon import NeonInt8
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.product import ProductShape, product_kernel
from canao.compiler.kernels.values import bytes_of

ENGINES = (Avx512F32(), Avx512Bf16(), Avx512Int8())


def asked_for(engine: Engine, shape: ProductShape) -> list[int]:
    """For each place in the kernel's text that asks, how often its loop goes round."""
    text = product_kernel(engine, shape, Epilogue()).declaration()
    constants = dict(re.findall(r"(%\w+) = arith\.constant (\d+) : index", text))
    loops: list[str] = []
    rounds = []
    for line in text.splitlines():
        if found := re.search(r"scf\.for %\w+ = %\w+ to (%\w+) step", line):
            loops.append(found[1])
        elif line.strip() == "}" and loops:
            loops.pop()
        elif "memref.prefetch" in line:
            rounds.append(int(constants[loops[-1]]))
    return rounds


@given(
    st.sampled_from(ENGINES),
    st.integers(1, 400),
    st.integers(1, 3000),
    st.integers(1, 500),
)
def test_all_of_the_next_panel(engine: Engine, rows: int, depth: int, outputs: int) -> None:
    found = asked_for(engine, ProductShape(rows, depth, outputs))
    blocks, rest = divmod(rows, engine.block_rows)
    if blocks + bool(rest) < 4 or engine.panels(outputs) == 1:
        assert not found  # so few pass by too quickly, or there is no next one
        return
    size = engine.packed_shape(outputs, depth)[1] * bytes_of(engine.element)
    share = size // (blocks + bool(rest))
    assert found
    for lines in found:
        assert share // LINE <= lines
        # Not much more than all: a round of the loop asks for one line.
        assert lines <= max(1, 2 * (share // LINE + 1))


def test_cores_that_do_it_themselves_are_left_alone() -> None:
    assert not asked_for(NeonInt8(8, 2), ProductShape(128, 256, 256))
