"""Linear layers in a narrow precision where no kernel serves them: numbers, sizes, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.api import compile_model
from canao.compiler.lowering import lower
from canao.compiler.patterns.product_weights import precision_of

from ..profiles import compiling
from .support import imported, lower_and_run, relative_error, request_for

DROPPED = ("canao.kernel_linear", "canao.kernel_layer_norm", "canao.kernel_attention")
# Of codes, half a step is 0.2 % of a row's range, and 0.4 % of a weight's largest.
TOLERANCES = {"int8": 2e-2, "f16": 1e-3, "bf16": 8e-3}


class Layers(torch.nn.Module):
    """Two projections of one input, one of their sum, all wide enough to be narrow."""

    def __init__(self, depth: int, width: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(depth * width)
        self.left = torch.nn.Linear(depth, width, bias=bias)
        self.right = torch.nn.Linear(depth, width, bias=bias)
        self.out = torch.nn.Linear(width, outputs, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.nn.functional.gelu(self.left(x)) + self.right(x))


@pytest.mark.parametrize("precision", TOLERANCES)
@compiling()
@given(
    rows=st.integers(1, 40),
    depth=st.integers(16, 80),
    width=st.integers(16, 70),
    outputs=st.integers(16, 50),
    bias=st.booleans(),
)
def test_layers_of_any_shape_are_right_without_kernels(
    precision: str,
    rows: int,
    depth: int,
    width: int,
    outputs: int,
    bias: bool,
    tmp_path_factory: Any,
) -> None:
    module = Layers(depth, width, outputs, bias=bias).eval()
    model, entry, inputs = imported(module, [3 * torch.randn(2, rows, depth) + 1])
    folder = tmp_path_factory.mktemp("layers")
    found, result = lower_and_run(
        model, inputs, folder, precision=precision, drop_patterns=DROPPED
    )
    assert dict(result.kernels) == {f"product linalg_{precision}": 2}
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]
