"""Linear layers in a narrow precision where no kernel serves them: numbers, sizes, reports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from iree.compiler import ir

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.flags import iree_flags
from canao.compiler.iree_session import PhasedCompiler
from canao.compiler.lowering import lower
from canao.compiler.parameters import ParameterTable
from canao.compiler.patterns.base import PatternContext
from canao.compiler.patterns.byte_storage import ByteStorage
from canao.errors import InputError
from canao.runtime_harness.bundle import Bundle

from ..profiles import compiling
from .support import Five, imported, lower_and_run, relative_error, request_for

DROPPED = ("canao.kernel_linear", "canao.kernel_layer_norm", "canao.kernel_attention")
# Of codes, half a step is 0.2 % of a row's range, and 0.4 % of a weight's largest.
TOLERANCES = {"int8": 2e-2, "int8-weights": 1.2e-2, "f16": 1e-3, "bf16": 8e-3}


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


CASES = 5
SHAPES = st.tuples(
    st.integers(1, 40),
    st.integers(16, 80),
    st.integers(16, 70),
    st.integers(16, 50),
    st.booleans(),
)


@pytest.mark.parametrize("precision", TOLERANCES)
@compiling(CASES)
@given(shapes=st.lists(SHAPES, min_size=CASES, max_size=CASES))
def test_layers_of_any_shape_are_right_without_kernels(
    precision: str, shapes: list[tuple[int, int, int, int, bool]], tmp_path_factory: Any
) -> None:
    modules = [
        Layers(depth, width, outputs, bias=bias) for _, depth, width, outputs, bias in shapes
    ]
    drawn = [3 * torch.randn(2, rows, depth) + 1 for rows, depth, *_ in shapes]
    model, entry, inputs = imported(Five(modules).eval(), drawn)
    folder = tmp_path_factory.mktemp("layers")
    found, result = lower_and_run(
        model, inputs, folder, precision=precision, drop_patterns=DROPPED
    )
    assert dict(result.kernels) == {f"product linalg_{precision}": 2 * CASES}
    assert relative_error(found, entry(*inputs)) < TOLERANCES[precision]


def test_a_row_of_equal_values_is_exact(tmp_path: Any) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 16).eval()
    codes = torch.randint(-127, 128, (16, 32)).float()
    codes[:, 0] = 127
    layer.weight.data = codes / 64
    rows = torch.tensor([[0.0], [3.0], [-1e4], [1e-20]]).expand(4, 32).contiguous()
    model, entry, inputs = imported(layer, [rows])
    found, _ = lower_and_run(model, inputs, tmp_path, precision="int8", drop_patterns=DROPPED)
    assert relative_error(found, entry(*inputs)) < 1e-6


def test_a_row_that_is_not_a_number_stays_one_and_spoils_no_other(tmp_path: Any) -> None:
    layer = torch.nn.Linear(32, 16).eval()
    x = torch.randn(3, 32)
    x[1, 5] = torch.nan
    model, _, inputs = imported(layer, [x])
    found, _ = lower_and_run(model, inputs, tmp_path, precision="int8", drop_patterns=DROPPED)
    broken = torch.from_numpy(found[0]).isnan().all(dim=1)
    assert broken.tolist() == [False, True, False]
    assert torch.from_numpy(found[0])[[0, 2]].isfinite().all()


class Mixed(torch.nn.Module):
    """A layer to narrow, one that stays wide, and one too small to narrow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.narrow = torch.nn.Linear(32, 48)
        self.wide = torch.nn.Linear(48, 32)
        self.head = torch.nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.wide(torch.relu(self.narrow(x)))))


@pytest.mark.parametrize("wider", ["f32", "bf16"])
def test_weights_that_are_to_stay_wider_do(wider: str, tmp_path: Any) -> None:
    model, entry, inputs = imported(Mixed().eval(), [torch.randn(1, 9, 32)])
    found, result = lower_and_run(
        model,
        inputs,
        tmp_path,
        precision="int8",
        drop_patterns=DROPPED,
        wider=(("wide.weight", wider),),
    )
    narrow = {"product linalg_int8": 1}
    assert dict(result.kernels) == narrow | (
        {} if wider == "f32" else {f"product linalg_{wider}": 1}
    )
    assert relative_error(found, entry(*inputs)) < TOLERANCES["int8"]


def test_a_weight_rounded_for_smoothed_activations_gets_them(tmp_path: Any) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 48).eval()
    x = torch.randn(5, 32)
    x[:, 3] *= 1000
    model, entry, inputs = imported(layer, [x])
    smoothing = torch.ones(32)
    smoothing[3] = 1e-3
    model.parameters["smooth"] = smoothing
    model.parameters["rounded"] = layer.weight.detach() / smoothing
    dropped = {"precision": "int8", "drop_patterns": DROPPED}
    plain, _ = lower_and_run(model, inputs, tmp_path, **dropped)
    smoothed, _ = lower_and_run(
        model, inputs, tmp_path, rounded=(("weight", "rounded", "smooth"),), **dropped
    )
    # The one loud column takes the codes from all others; smoothed, it costs the weight.
    assert relative_error(smoothed, entry(*inputs)) < relative_error(plain, entry(*inputs))


def test_the_report_names_the_precision_that_linalg_computes_in(tmp_path: Any) -> None:
    """A CPU without any feature has no kernel of int8."""
    model, _, _ = imported(Mixed().eval(), [torch.randn(1, 9, 32)])
    request = request_for(model, precision="int8")
    bare = targets.Target(
        name="bare",
        kind="cpu",
        description="a CPU that no kernel knows",
        triple="x86_64-unknown-linux-gnu",
        precisions=("f32", "int8"),
    )
    result = lower(request.__class__(**{**request.__dict__, "target": bare}), tmp_path / "m")
    assert result.fallbacks[:3] == (
        "narrow: linear layer by linalg in int8, because no kernel does int8 on this CPU",
        "wide: linear layer by linalg in int8, because no kernel does int8 on this CPU",
        "head: linear layer by linalg, because 32 x 3 is too small to tile",
    )


GPUS = ("vulkan-llvmpipe", "vulkan-adreno", "vulkan-mali")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_gpus_get_every_precision(precision: str, tmp_path: Path) -> None:
    """Right on software Vulkan, compiled for the others, in a bundle that says what it needs."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.LayerNorm(72), Layers(72, 160, 33, bias=True), torch.nn.LayerNorm(33)
    )
    report = compile_model(
        module.eval(),
        example_inputs={"input": torch.randn(1, 11, 72)},
        target=GPUS,
        precision=precision,
        output=tmp_path / "bundle",
    )
    found = report.numerics["vulkan-llvmpipe"]
    assert found is not None
    assert found["ok"]
    assert all(
        dict(count) == {f"product linalg_{precision}": 2} for count in report.kernels.values()
    )
    assert not report.fallbacks
    for entry in Bundle.open(tmp_path / "bundle").manifest.modules:
        assert entry.features == targets.VULKAN_FEATURES[precision]


def test_int8_on_a_gpu_makes_a_small_bundle(tmp_path: Path) -> None:
    """The weights of the layers take a quarter of what they take in f32, f16 a half."""
    module = Layers(256, 256, 256, bias=True).eval()
    sizes = {}
    for precision in ("f32", "f16", "int8", "int8-weights"):
        path = tmp_path / precision
        compile_model(
            module,
            example_inputs={"x": torch.randn(1, 4, 256)},
            target="vulkan-llvmpipe",
            precision=precision,
            output=path,
        )
        sizes[precision] = (path / "weights.safetensors").stat().st_size
    assert sizes["f16"] < 0.52 * sizes["f32"]
    assert sizes["int8"] < 0.28 * sizes["f32"]
    assert sizes["int8-weights"] < sizes["int8"]


@pytest.mark.parametrize("target", GPUS)
def test_byte_storage_reaches_every_gpu(target: str) -> None:
    text = "func.func @main(%x: tensor<4xi8>) -> tensor<4xi8> { return %x : tensor<4xi8> }"
    compiler = PhasedCompiler(text, iree_flags(targets.get(target)))
    compiler.advance("flow")
    storage = re.compile(r"storage = ([\w|]+)")
    counts = []
    for precision in ("f32", "int8"):
        context = PatternContext(
            target=targets.get(target), precision=precision, parameters=ParameterTable(())
        )
        with compiler.context, ir.Location.unknown():
            counts.append(ByteStorage().run(compiler.module, context))
    stored = storage.search(str(compiler.module))
    assert stored is not None
    assert stored[1].split("|").count("b8") == 1
    assert counts == [0, int(target == "vulkan-adreno")]


def test_a_precision_that_a_target_lacks_is_refused_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="host cannot do f16: it can do f32"):
        compile_model(
            torch.nn.Linear(16, 16),
            example_inputs={"x": torch.randn(1, 16)},
            target="host",
            precision="f16",
            output=tmp_path / "bundle",
        )
