"""Look-ups in tables as kernels: what they take, what they leave, the same numbers; masks of one
row for all queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.patterns import quantize_embeddings

from ..profiles import compiling
from . import families
from .support import FiveMasked, imported, lower_and_run, relative_error

CASES = 5
HOST = targets.get("host")
NARROW = [p for p in ("bf16", "int8") if p in HOST.precisions]
WITHOUT = ("canao.kernel_embedding",)


class Tables(torch.nn.Module):
    """Words, types and positions, added in one of three ways, and a norm."""

    def __init__(self, words: int, width: int, length: int, way: int) -> None:
        super().__init__()
        torch.manual_seed(words * width)
        self.words = torch.nn.Embedding(words, width)
        self.types = torch.nn.Embedding(3, width)
        self.positions = torch.nn.Embedding(length + 2, width)
        self.project = torch.nn.Linear(width, width)
        self.way = way

    def forward(self, ids: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        positions = self.positions(torch.arange(ids.shape[1])[None] + 2)
        if self.way == 0:
            return self.words(ids) + self.types(kinds) + positions
        if self.way == 1:
            return positions + (self.types(kinds) + self.project(self.words(ids)))
        return self.words(ids) * 2.0 + self.types(kinds)


DRAWN = st.tuples(
    st.integers(1, 3),
    st.integers(1, 70),
    st.integers(3, 99),
    st.integers(1, 70),
    st.integers(0, 2),
)


@pytest.mark.parametrize("narrow", [False, True])
@compiling(CASES)
@given(drawn=st.lists(DRAWN, min_size=CASES, max_size=CASES))
def test_any_look_up_is_right(
    narrow: bool, drawn: list[tuple[int, int, int, int, int]], tmp_path_factory: Any
) -> None:
    modules = [Tables(words, width, n, way) for _, n, words, width, way in drawn]
    ids = [torch.randint(0, words, (batch, n)) for batch, n, words, *_ in drawn]
    kinds = [torch.randint(0, 3, (batch, n)) for batch, n, *_ in drawn]
    model, entry, inputs = imported(FiveMasked(modules).eval(), [*ids, *kinds])
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_embeddings, "LEAST_TABLE", 1)
        asked = {"narrow_tables": narrow}
        found, result = lower_and_run(model, inputs, folder, **asked)
        plain, other = lower_and_run(model, inputs, folder, drop_patterns=WITHOUT, **asked)
    ways = [way for *_, way in drawn]
    assert result.kernels["embedding"] == sum(1 if way == 0 else 2 for way in ways)
    assert "embedding" not in other.kernels
    # A projection may be too narrow for a kernel; a table never is.
    assert all("linear layer" in line for line in result.fallbacks)
    for one, same in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-6, atol=1e-5)
    assert relative_error(found, entry(*inputs)) < (2e-2 if narrow else 1e-5)


@pytest.mark.parametrize("family", families.CONFIGS)
def test_every_family_looks_up_by_kernels(family: str, tmp_path: Any) -> None:
    """And gives the numbers of linalg to the bit."""
    model, entry, inputs = imported(families.build(family))
    found, result = lower_and_run(model, inputs, tmp_path)
    plain, _ = lower_and_run(model, inputs, tmp_path, drop_patterns=WITHOUT)
    # MobileBERT's words are put side by side and projected before the others are added.
    assert result.kernels["embedding"] == (2 if family == "MobileBERT" else 1)
    assert not any("embedding" in line for line in result.fallbacks)
    assert all((one == same).all() for one, same in zip(found, plain, strict=True))
    assert relative_error(found, entry(*inputs)) < 1e-5


@pytest.mark.parametrize("precision", NARROW)
def test_a_model_begins_with_one_dispatch(precision: str, tmp_path: Any) -> None:
    """Look-up, norm and the first product, by rows."""
    model, entry, inputs = imported(families.build("BERT"), length=40)
    found, result = lower_and_run(model, inputs, tmp_path, precision=precision)
    names = [name for name, _ in result.calls if name.startswith("run_")]
    assert names[0].startswith("run_rows_embedding_40x32_norm_product_")
    assert sum("embedding" in name for name in names) == 1
    assert relative_error(found, entry(*inputs)) < 6e-2


class Others(torch.nn.Module):
    """A table that is computed, and a look-up that no input has a part in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(9, 8))
        self.fixed = torch.nn.Embedding(5, 8)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        scaled = torch.nn.functional.embedding(ids, self.table * x.sum())
        return scaled + self.fixed(torch.arange(4))


def test_what_no_kernel_serves_is_linalg(tmp_path: Any) -> None:
    drawn = [torch.randint(0, 9, (2, 4)), torch.randn(3)]
    model, entry, inputs = imported(Others().eval(), drawn)
    found, result = lower_and_run(model, inputs, tmp_path)
    assert "embedding" not in result.kernels
    (line,) = result.fallbacks
    assert "embedding by linalg, because its table is no weight" in line
    assert relative_error(found, entry(*inputs)) < 1e-5


class Masked(torch.nn.Module):
    """Attention with a mask of keys, repeated for all queries or met by one of queries."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        every = torch.arange(length)[None, None, :, None] >= 0
        allowed = (every & mask[:, None, None, :].bool()).expand(batch, 1, length, length)
        if self.causal:
            allowed = allowed & torch.ones(length, length, dtype=torch.bool).tril()
        heads = x.view(batch, length, 2, -1).transpose(1, 2)
        y = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, allowed)
        return y.transpose(1, 2).reshape(batch, length, -1)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_of_keys_stays_one_row(causal: bool, tmp_path: Any) -> None:
    batch, length = 3, 21
    mask = (torch.rand(batch, length) > 0.3).long()
    mask[:, 0] = 1
    model, entry, inputs = imported(Masked(causal).eval(), [torch.randn(batch, length, 32), mask])
    found, result = lower_and_run(model, inputs, tmp_path)
    (name,) = (name for name, _ in result.calls if name.startswith("run_attention"))
    queries = length if causal else 1
    assert f"_{batch}x1x{queries}x{length}_" in name
    assert relative_error(found, entry(*inputs)) < 1e-5


def test_the_mask_of_a_model_is_one_dispatch(tmp_path: Any) -> None:
    model, _, inputs = imported(families.build("BERT"))
    _, result = lower_and_run(model, inputs, tmp_path)
    own = [name for name, _ in result.calls if "elementwise" in name]
    assert len(own) == 1
    assert all("_1x1x1x12_" in name for name, _ in result.calls if "run_attention" in name)
