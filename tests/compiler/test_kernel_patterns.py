"""Kernels called from models: what they absorb, in which forms they pass values on, numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.registry import engines
from canao.compiler.kernels.vector_math import gelu_reference

from ..profiles import compiling
from .support import Five, FiveMasked, imported, lower_and_run, relative_error

TOLERANCES = {"f32": 1e-5, "bf16": 3e-2, "int8": 6e-2}
HOST = targets.get("host")
PRECISIONS = [p for p in TOLERANCES if engines(HOST.features, p)]
ACTIVATIONS = {
    "none": torch.nn.Identity(),
    "gelu": torch.nn.GELU(),
    "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    "relu": torch.nn.ReLU(),
    "silu": torch.nn.SiLU(),
    "tanh": torch.nn.Tanh(),
}


class Block(torch.nn.Module):
    """Norm, product, activation, product, residual."""

    def __init__(self, width: int, inner: int, *, activation: str, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(width * inner)
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, inner, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.down = torch.nn.Linear(inner, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return y + self.down(self.activation(self.up(y)))


CASES = 5
BLOCKS = st.tuples(
    st.integers(1, 40),
    st.integers(16, 80),
    st.integers(16, 130),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.booleans(),
)


@pytest.mark.parametrize("precision", PRECISIONS)
@compiling(CASES)
@given(blocks=st.lists(BLOCKS, min_size=CASES, max_size=CASES))
def test_a_block_of_any_shape_is_right(
    precision: str, blocks: list[tuple[int, int, int, str, bool]], tmp_path_factory: Any
) -> None:
    modules = [
        Block(width, inner, activation=activation, bias=bias)
        for _, width, inner, activation, bias in blocks
    ]
    drawn = [torch.randn(2, rows, width) for rows, width, *_ in blocks]
    model, entry, inputs = imported(Five(modules).eval(), drawn)
    folder = tmp_path_factory.mktemp("block")
    found, result = lower_and_run(model, inputs, folder, precision=precision)
    assert result.patterns["canao.kernel_linear"] == 2 * CASES
    assert result.patterns["canao.kernel_layer_norm"] == CASES
    assert not result.fallbacks
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


def test_a_block_is_one_dispatch_for_each_kernel(tmp_path: Any) -> None:
    block = Block(64, 96, activation="gelu", bias=True).eval()
    model, _, inputs = imported(block, [torch.randn(1, 16, 64)])
    _, result = lower_and_run(model, inputs, tmp_path)
    assert len(result.calls) == 3
    assert dict(result.kernels) == {"product avx512_f32": 2, "layer norm": 1} or all(
        name == "layer norm" or name.startswith("product ") for name in result.kernels
    )


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "f32"])
def test_norms_write_what_products_read(precision: str, tmp_path: Any) -> None:
    """In a narrow precision the norm's kernel narrows; only int8 needs a dispatch in between."""
    block = Block(64, 96, activation="gelu", bias=True).eval()
    model, _, inputs = imported(block, [torch.randn(1, 16, 64)])
    _, result = lower_and_run(model, inputs, tmp_path, precision=precision)
    names = [name for name, _ in result.calls]
    between = [name for name in names if "quantize_" in name]
    assert len(between) == (1 if precision == "int8" else 0)
    assert not any("convert_" in name for name in names)


class Layer(torch.nn.Module):
    """What follows attention in a layer: projection, residual, norm, block, residual, norm."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.out = torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, inner), torch.nn.Linear(inner, width)
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(self.out(x) + x)
        return self.second(self.down(torch.nn.functional.gelu(self.up(y))) + y)


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "f32"])
@compiling(CASES)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 2), st.integers(33, 70), st.integers(16, 80)),
        min_size=CASES,
        max_size=CASES,
    )
)
def test_what_follows_a_product_is_done_with_its_rows(
    precision: str, shapes: list[tuple[int, int, int]], tmp_path_factory: Any
) -> None:
    """To the bit what single kernels give."""
    layers = Five([Layer(width, 2 * width + 3) for *_, width in shapes]).eval()
    folder = tmp_path_factory.mktemp("layer")
    model, entry, inputs = imported(layers, [torch.randn(*shape) for shape in shapes])
    fused, one = lower_and_run(model, inputs, folder, precision=precision)
    drop = ("canao.fuse_rows",)
    apart, many = lower_and_run(model, inputs, folder, precision=precision, drop_patterns=drop)
    # Each projection with its norm; in int8 the other product with what quantises its result.
    chains = (3 if precision == "int8" else 2) * CASES
    assert one.patterns["canao.fuse_rows"] == chains
    assert sum(name.startswith("run_rows_") for name, _ in one.calls) == chains
    assert not any("norm_" in name for name, _ in one.calls if not name.startswith("run_rows_"))
    assert not any(name.startswith("run_rows_") for name, _ in many.calls)
    assert all((found == single).all() for found, single in zip(fused, apart, strict=True))
    assert relative_error(fused, entry(*inputs)) < TOLERANCES[precision]


class Turned(torch.nn.Module):
    """A norm that reads the rows of a product in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.norm = torch.nn.Linear(32, 32), torch.nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.flip(self.out(x), (1,)))


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "f32"])
def test_a_dispatch_ends_where_other_rows_are_read(precision: str, tmp_path: Any) -> None:
    model, entry, inputs = imported(Turned().eval(), [torch.randn(1, 64, 32)])
    found, result = lower_and_run(model, inputs, tmp_path, precision=precision)
    assert result.patterns["canao.fuse_rows"] == 1  # what narrows the input, and the product
    assert sum("norm" in name for name, _ in result.calls) == 1
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


@pytest.mark.parametrize("rows", [16, 32])
def test_few_rows_are_shared_by_columns(rows: int, tmp_path: Any) -> None:
    model, _, inputs = imported(Layer(32, 48).eval(), [torch.randn(1, rows, 32)])
    _, result = lower_and_run(model, inputs, tmp_path, precision=PRECISIONS[-1])
    assert result.patterns["canao.fuse_rows"] == 0


class Twice(torch.nn.Module):
    """A product whose result has two readers, and one that is the output itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(32, 32)
        self.second = torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.first(x)
        return torch.nn.functional.gelu(y) + self.second(y), y


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_others_read_is_not_absorbed(precision: str, tmp_path: Any) -> None:
    model, entry, inputs = imported(Twice().eval(), [torch.randn(3, 32)])
    found, result = lower_and_run(model, inputs, tmp_path, precision=precision)
    assert result.patterns["canao.kernel_linear"] == 2
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


class Joined(torch.nn.Module):
    """Self-attention as models write it."""

    def __init__(self, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.parts = torch.nn.ModuleList(torch.nn.Linear(32, heads * depth) for _ in range(3))
        self.out = torch.nn.Linear(heads * depth, 32)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part(x).view(batch, length, self.heads, self.depth).transpose(1, 2)
            for part in self.parts
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1)) + x


ATTENTIONS = st.tuples(
    st.integers(1, 2), st.integers(1, 40), st.integers(1, 4), st.sampled_from([8, 16, 20, 32])
)


@pytest.mark.parametrize("precision", PRECISIONS)
@compiling(CASES)
@given(shapes=st.lists(ATTENTIONS, min_size=CASES, max_size=CASES))
def test_attention_reads_the_joined_projection(
    precision: str, shapes: list[tuple[int, int, int, int]], tmp_path_factory: Any
) -> None:
    modules = [Joined(heads, depth) for _, _, heads, depth in shapes]
    drawn = [torch.randn(batch, length, 32) for batch, length, *_ in shapes]
    drawn += [torch.rand(batch, 1, 1, length) > 0.3 for batch, length, *_ in shapes]
    model, entry, inputs = imported(FiveMasked(modules).eval(), drawn)
    folder = tmp_path_factory.mktemp("joined")
    found, result = lower_and_run(model, inputs, folder, precision=precision)
    assert result.patterns["canao.kernel_attention"] == CASES
    names = [name for name, _ in result.calls]
    assert not any("transpose" in name for name in names)
    # The model's own inputs are all that need narrowing by a kernel of their own.
    assert sum("convert_" in name for name in names) == (CASES if precision == "bf16" else 0)
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


class Unserved(torch.nn.Module):
    """A product too small to tile, and a norm over two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(32, 2)
        self.norm = torch.nn.LayerNorm((4, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x))


def test_what_no_kernel_serves_falls_back_and_is_reported(tmp_path: Any) -> None:
    model, entry, inputs = imported(Unserved().eval(), [torch.randn(1, 4, 32)])
    found, result = lower_and_run(model, inputs, tmp_path)
    assert result.fallbacks == (
        "head: linear layer by linalg, because 32 x 2 is too small to tile",
        "norm: layer norm by linalg, because it is not over the last dimension alone, with a "
        "weight, of f32",
    )
    assert relative_error(found, entry(*inputs)) < TOLERANCES["f32"]


def test_the_gelu_of_kernels_is_pytorchs() -> None:
    x = torch.linspace(-6, 6, 1001)
    found = torch.from_numpy(gelu_reference(x.numpy()))
    assert torch.allclose(found.float(), torch.nn.functional.gelu(x), atol=1e-6)
