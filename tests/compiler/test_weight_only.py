"""Weights alone in 8 or 4 bits, static and symmetric ranges: what is stored, planned, compiled,
refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.pytorch_utils import Conv1D

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.derivations import compute
from canao.compiler.kernels.weight_format import GROUP, WeightFormat
from canao.compiler.models import SourceModel, from_module
from canao.compiler.options import CompileOptions
from canao.compiler.quantization.fake import FakeLinear, Rows, bf16_rows, replaced, symmetric_rows
from canao.compiler.quantization.grids import nearest
from canao.compiler.quantization.int4 import int4_codes, int4_scales, int4_steps
from canao.compiler.quantization.plan import Decision, QuantizationPlan, plan_quantization
from canao.compiler.quantization.rounding import rounded_for
from canao.compiler.quantization.samples import samples_for
from canao.compiler.quantization.static import StaticRows, range_for
from canao.compiler.reference import draw_samples
from canao.errors import InputError

from . import families
from .support import imported, lower_and_run, relative_error
from .test_quantization import Feed, needs_int8

BITS = {"int8-weights": 8, "int4-weights": 4}
HOST = targets.get("host")
needs_weights = pytest.mark.skipif(
    "int4-weights" not in HOST.precisions, reason="no kernels for stored weights here"
)


def weights(outputs: int, depth: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, depth, generator=generator)
    weight[:, : depth // 3] *= float(torch.rand(1, generator=generator)) * 1e-3
    weight[0] = 0
    return weight


sizes = {"n": st.integers(1, 40), "depth": st.integers(1, 150), "seed": st.integers(0, 2**31)}


# -- four bits -----------------------------------------------------------------------------------


@given(**sizes)
def test_codes_lie_within_half_a_step(n: int, depth: int, seed: int) -> None:
    weight = weights(n, depth, seed)
    codes, scales = int4_codes(weight), int4_scales(weight)
    steps = int4_steps(scales, depth)
    assert scales.shape == (n, -(-depth // GROUP))
    assert torch.equal(scales, scales.to(torch.bfloat16).float())
    assert codes.amin() >= -8
    assert codes.amax() <= 7
    # The scale is rounded to bf16; at the end without a code, 8, the error is up to a step.
    error = (codes * steps - weight).abs()
    assert (error <= steps.abs() * torch.where(codes == 7, 1.04, 0.54)).all()


@given(**sizes, bits=st.sampled_from([4, 8]), view=st.booleans())
def test_what_is_rounded_is_packed_without_more_rounding(
    n: int, depth: int, seed: int, bits: int, view: bool
) -> None:
    weight = weights(n, depth, seed)
    rows = torch.randn(50, depth, generator=torch.Generator().manual_seed(seed))
    rounded = rounded_for(weight, rows, bits) if view else nearest(weight, bits)
    torch.testing.assert_close(nearest(rounded, bits), rounded, rtol=1e-6, atol=0)
    form = WeightFormat(bits, 8)
    attributes = {"bits": bits, "lanes": 8}
    words = compute("stored_words", [rounded], attributes).numpy()
    scales = compute("stored_scales", [rounded], attributes).numpy()
    assert words.shape == form.words_shape(n, depth)
    assert scales.shape == form.scales_shape(n, depth)
    found = form.dequantised(words, scales, n, depth)
    np.testing.assert_allclose(found, rounded.numpy(), rtol=1e-6)


def test_rounding_in_view_of_the_input_beats_rounding_to_nearest() -> None:
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(80, 80, generator=generator)
    rows, others = (torch.randn(400, 80, generator=generator) @ mix for _ in range(2))
    weight = torch.randn(48, 80, generator=generator)

    def error(found: torch.Tensor) -> float:
        return float((others @ (found - weight).T).square().mean())

    assert error(rounded_for(weight, rows, 4)) < 0.8 * error(nearest(weight, 4))


# -- plans and what is compiled ------------------------------------------------------------------


def block(rows: int) -> tuple[Feed, SourceModel, torch.Tensor]:
    module = Feed().eval()
    x = torch.randn(1, rows, 64, generator=torch.Generator().manual_seed(5))
    return module, from_module(module, [x]), x


def compiled(
    source: SourceModel, plan: QuantizationPlan, precision: str, folder: Path, **options: Any
) -> tuple[torch.Tensor, Any]:
    model, _, inputs = imported(source.module, list(source.example_inputs))
    fields = plan.fields(model.parameters)
    (found,), result = lower_and_run(
        plan.added_to(model), inputs, folder, precision=precision, **fields, **options
    )
    return torch.from_numpy(found), result


def simulation(
    module: Any, plan: QuantizationPlan, x: torch.Tensor, rows_of: Callable[[torch.Tensor], Rows]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a block gives with the plan's weights, ``rows_of`` each telling of its activations,
    and what it gives by itself."""
    fakes = {}
    for linear in (module.up, module.down):
        rounded, vector = plan.rounded[linear.weight.data_ptr()]
        rows = rows_of(linear.weight)
        fakes[linear] = FakeLinear(plan.tensors[rounded], plan.tensors.get(vector), rows)
    with torch.no_grad():
        exact = module(x)
        with replaced(fakes, {}):
            return module(x), exact


@needs_weights
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("precision", BITS)
def test_the_simulation_is_what_is_compiled(precision: str, rows: int, tmp_path: Path) -> None:
    module, source, x = block(rows)
    plan = plan_quantization(source, None, Decision(precision=precision, cosine=0.5))
    found, result = compiled(source, plan, precision, tmp_path)
    stored = [name for name in result.parameters if name.startswith("stored_words(rounded(")]
    assert len(stored) == 2
    assert not {"up.weight", "down.weight"} & set(result.parameters)
    # A few rows are f32 throughout; with more, bf16 where the core has it.
    fakes = {
        linear: FakeLinear(
            plan.tensors[plan.rounded[linear.weight.data_ptr()][0]],
            None,
            bf16_rows if rows > 1 and "bf16" in HOST.precisions else torch.nn.Identity(),
        )
        for linear in (module.up, module.down)
    }
    with torch.no_grad(), replaced(fakes, {}):
        simulated = module(x)
    assert relative_error([found.numpy()], [simulated]) < (1e-5 if rows == 1 else 1e-3)


def test_four_bits_become_eight_where_they_cost_too_much() -> None:
    _, source, _ = block(40)
    plan = plan_quantization(source, None, Decision(precision="int4-weights", cosine=0.9999999))
    assert set(plan.report["wider"]) == {"up.weight", "down.weight"}
    assert set(plan.wider.values()) == {"int8-weights"}
    for linear in (source.module.up, source.module.down):  # type: ignore[union-attr]
        name, _ = plan.rounded[linear.weight.data_ptr()]  # type: ignore[union-attr,index]
        torch.testing.assert_close(nearest(plan.tensors[name], 8), plan.tensors[name])


@needs_weights
def test_wider_weights_have_eight_bits(tmp_path: Path) -> None:
    module, source, _ = block(2)
    plan = plan_quantization(source, None, Decision(precision="int4-weights", cosine=0.9999999))
    _, result = compiled(source, plan, "int4-weights", tmp_path)
    stored = [name for name in result.parameters if name.startswith("stored_words(")]
    assert len(stored) == 2
    assert all("bits=8" in name for name in stored)
    assert module.up.weight.data_ptr() in plan.wider


@needs_weights
@pytest.mark.parametrize(
    ("family", "precision"), [("BERT", "int4-weights"), ("Llama", "int8-weights")]
)
def test_models_share_weights_among_lengths(family: str, precision: str, tmp_path: Path) -> None:
    report = compile_model(
        families.build(family), precision=precision, seq_len=[1, 12], output=tmp_path / "m"
    )
    numerics = report.numerics["host"]
    assert numerics is not None
    assert numerics["ok"]
    assert report.bundle.manifest.tolerance == {"cosine": 0.998}
    first, second = (set(module.parameters) for module in report.bundle.manifest.modules)
    stored = {name for name in first if name.startswith("stored_words(")}
    assert stored
    assert stored <= second


class Turned(torch.nn.Module):
    """Products as GPT-2 writes them: of three dimensions, of two, and by a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.up, self.down = Conv1D(96, 64), Conv1D(64, 96)
        torch.nn.init.normal_(self.up.weight, std=0.1)
        torch.nn.init.normal_(self.down.weight, std=0.1)
        torch.nn.init.normal_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(self.up(x))
        flat = self.down(y.reshape(-1, 96))
        return flat.reshape(x.shape) + torch.addmm(self.down.bias, x[0], x[0].T @ x[0])


@needs_weights
def test_products_of_gpt_2_are_linear_layers(tmp_path: Path) -> None:
    module = Turned().eval()
    x = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(5)) / 8
    source = from_module(module, [x])
    plan = plan_quantization(source, None, Decision(precision="int4-weights", cosine=0.5))
    found, result = compiled(source, plan, "int4-weights", tmp_path)
    assert result.patterns["canao.linear_of_addmm"] == 2
    stored = [name for name in result.parameters if name.startswith("stored_words(rounded(")]
    assert len(stored) == 2
    fakes = {
        layer: FakeLinear(
            plan.tensors[plan.rounded[layer.weight.data_ptr()][0]], None, torch.nn.Identity()
        )
        for layer in (module.up, module.down)
    }
    with torch.no_grad():
        up, down = (fakes[layer].weight for layer in (module.up, module.down))
        assert up.shape == (96, 64)
        y = torch.nn.functional.gelu(x @ up.T + module.up.bias)
        expected = y @ down.T + module.down.bias
        expected = expected + torch.addmm(module.down.bias, x[0], x[0].T @ x[0])
    assert relative_error([found.numpy()], [expected]) < 1e-5


# -- static ranges -------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**31))
def test_a_range_holds_zero_and_is_within_the_rows(rows: int, depth: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, depth, generator=generator)
    low, high = range_for(x, [torch.randn(5, depth, generator=generator)])
    assert min(0.0, float(x.min())) <= low <= 0 <= high <= max(0.0, float(x.max()))
    inside = x.clamp(low, high)
    found = StaticRows(torch.stack([low, high]))(x)
    assert ((found - inside).abs() <= 0.51 * (high - low) / 255).all()


def test_rare_large_values_are_clipped_where_that_is_more_exact() -> None:
    x = torch.randn(256, 512, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    x[0, 0] = 20.0
    assert range_for(x, [torch.randn(8, 512, generator=torch.Generator().manual_seed(2))])[1] < 19


@needs_int8
def test_static_ranges_are_what_is_compiled(tmp_path: Path) -> None:
    module, source, x = block(40)
    plan = plan_quantization(source, None, Decision(activations="static", cosine=0.9))
    assert set(plan.report["ranges"]) == {"up", "down"}
    found, result = compiled(source, plan, "int8", tmp_path)
    assert sum(name.startswith("static(range(") for name in result.parameters) == 2
    # Where quantising is a dispatch of its own, its name tells the scheme.
    _, apart = compiled(source, plan, "int8", tmp_path, drop_patterns=("canao.fuse_rows",))
    names = [name for name, _ in apart.calls]
    assert any("static" in name for name in names)
    assert not any("asymmetric" in name for name in names)

    def rows_of(weight: torch.Tensor) -> Rows:
        return StaticRows(plan.tensors[plan.ranges[weight.data_ptr()]])

    simulated, exact = simulation(module, plan, x, rows_of)
    assert (found - simulated).abs().max() < 0.3 * (simulated - exact).abs().max()


@needs_int8
def test_symmetric_ranges_are_what_is_compiled(tmp_path: Path) -> None:
    module, source, x = block(40)
    plan = plan_quantization(source, None, Decision(activations="symmetric", cosine=0.9))
    assert plan.report["activations"] == "symmetric"
    found, apart = compiled(source, plan, "int8", tmp_path, drop_patterns=("canao.fuse_rows",))
    names = [name for name, _ in apart.calls if "quantize" in name or "layer_norm" in name]
    assert names
    assert not any("asymmetric" in name for name in names)
    simulated, exact = simulation(module, plan, x, lambda _: symmetric_rows)
    assert (found - simulated).abs().max() < 0.3 * (simulated - exact).abs().max()


# -- what is judged, and what is refused ---------------------------------------------------------


def test_what_a_bundle_is_verified_with_is_judged() -> None:
    source = from_module(families.build("BERT"), None)
    judged = samples_for(source, (), (8, 12, 16), batch=2).drawn
    for length in (8, 16):
        for sample in draw_samples(source, length, 2):
            assert any(all(map(torch.equal, sample, other)) for other in judged)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "vulkan-llvmpipe", "precision": "int4-weights"}, "it can do .*int8-weights"),
        ({"target": "vulkan-llvmpipe", "precision": "int8", "activations": "static"}, "dynamic"),
        ({"target": "vulkan-mali", "precision": "int8", "activations": "symmetric"}, "dynamic"),
        ({"target": "arm64", "activations": "static"}, "Static activations are for int8"),
        ({"target": "arm64", "activations": "symmetric"}, "Symmetric activations are for int8"),
        (
            {"target": "arm64", "precision": "int8", "activations": "fixed"},
            "dynamic, symmetric, static",
        ),
        ({"target": "arm64", "cosine": 0.9}, "for int8, int8-weights, int4-weights"),
        ({"target": "arm64", "precision": "int8", "cosine": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_calls_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CompileOptions.checked(**{"seq_len": 8, **changes})


def test_a_cosine_replaces_the_tolerance() -> None:
    options = CompileOptions.checked(
        target="arm64", seq_len=8, precision="int4-weights", cosine=0.97, calibration=["A text."]
    )
    assert options.tolerance == {"cosine": 0.97}
