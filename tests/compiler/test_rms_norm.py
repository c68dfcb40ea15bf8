"""Root-mean-square norms, however they are spelled: a kernel's, or left alone and told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.registry import engines

from ..profiles import compiling
from .support import Five, imported, lower_and_run, relative_error

HOST = targets.get("host")
PRECISIONS = [p for p in ("f32", "bf16", "int8") if engines(HOST.features, p)]
TOLERANCES = {"f32": 1e-5, "bf16": 3e-2, "int8": 6e-2}
CASES = 5


def _root(x: torch.Tensor, square: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.rsqrt(square.mean(-1, keepdim=True) + eps)


SPELLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "Llama": lambda x, g: g * (x * _root(x, x.pow(2), 1e-6)),
    "product": lambda x, g: (_root(x, x * x, 1e-3) * x) * g,
    "Gemma": lambda x, g: x * _root(x, x.pow(2), 1e-5) * (1.0 + g),
}
OTHERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "no weight": lambda x, g: x * _root(x, x.pow(2), 1e-6) + g,
    "third power": lambda x, g: g * (x * _root(x, x.pow(3).abs(), 1e-6)),
    "another one's root": lambda x, g: g * (x * _root(x, (x + 1).pow(2), 1e-6)),
    "over rows": lambda x, g: g * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)),
    "root read twice": lambda x, g: (r := _root(x, x.pow(2), 1e-6)) + g * (x * r),
    "normed read twice": lambda x, g: (y := x * _root(x, x.pow(2), 1e-6)) + g * y,
    "mean read twice": lambda x, g: (
        (m := x.pow(2).mean(-1, keepdim=True)) + g * (x * torch.rsqrt(m + 1e-6))
    ),
}


class Normed(torch.nn.Module):
    """A norm, and a layer that reads it."""

    def __init__(self, spelling: Callable[..., torch.Tensor], width: int, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.spelling = spelling
        self.gamma = torch.nn.Parameter(torch.randn(width))
        self.layer = torch.nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.spelling(x, self.gamma))


SHAPES = st.tuples(
    st.sampled_from(sorted(SPELLINGS)),
    st.integers(1, 40),
    st.integers(16, 130),
    st.sampled_from([1e-3, 1.0, 1e3]),
)


@pytest.mark.parametrize("precision", PRECISIONS)
@compiling(CASES)
@given(shapes=st.lists(SHAPES, min_size=CASES, max_size=CASES))
def test_every_spelling_is_a_kernel_and_right(
    precision: str, shapes: list[tuple[str, int, int, float]], tmp_path_factory: Any
) -> None:
    modules = [Normed(SPELLINGS[name], width, 32) for name, _, width, _ in shapes]
    inputs = [size * torch.randn(1, rows, width) for _, rows, width, size in shapes]
    model, entry, inputs = imported(Five(modules).eval(), inputs)
    folder = tmp_path_factory.mktemp("rms")
    found, result = lower_and_run(model, inputs, folder, precision=precision)
    assert result.kernels["RMS norm"] == CASES
    assert not any("norm" in line for line in result.linalg)
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_none_stays_as_it_is(name: str, tmp_path: Any) -> None:
    module = Normed(OTHERS[name], 32, 32).eval()
    model, entry, inputs = imported(module, [torch.randn(1, 8, 32)])
    found, result = lower_and_run(model, inputs, tmp_path)
    assert "RMS norm" not in result.kernels
    assert result.linalg == {"norm by linalg, because it is written out, and no RMS norm": 1}
    assert relative_error(found, entry(*inputs)) < TOLERANCES["f32"]


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "f32"])
def test_it_writes_what_the_product_reads(precision: str, tmp_path: Any) -> None:
    module = Normed(SPELLINGS["Llama"], 64, 48).eval()
    model, _, inputs = imported(module, [torch.randn(1, 16, 64)])
    _, result = lower_and_run(model, inputs, tmp_path, precision=precision)
    names = [name for name, _ in result.calls]
    assert not any("convert_" in name or "quantize_" in name for name in names)
