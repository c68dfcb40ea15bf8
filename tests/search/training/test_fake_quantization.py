from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from canao.compiler.compression.recipe import PrecisionRule, Recipe
from canao.compiler.quantization.fake import FakeLinear, fake_rows, fake_weight
from canao.search.training.fake_quantization import (
    FakeQuantized,
    quantized_linears,
)
from tests.search.support import tiny_model


def linear(seed: int) -> tuple[nn.Linear, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(24, 16), torch.randn(3, 5, 24) * 3 + 0.5


@given(st.integers(0, 2**16), st.booleans())
def test_it_computes_what_the_compiler_simulates(seed: int, autocast: bool) -> None:
    layer, x = linear(seed)
    wanted = FakeLinear(fake_weight(layer.weight.detach()))(x, layer.bias)
    with (
        FakeQuantized([layer]).on(),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        found = layer(x)
    # Bit for bit, autocast or not: only what goes backward is narrow.
    assert torch.equal(found, wanted)


@given(st.integers(0, 2**16))
def test_gradients_go_straight_through_the_rounding(seed: int) -> None:
    layer, x = linear(seed)
    x.requires_grad_(True)
    with FakeQuantized([layer]).on():
        layer(x).square().sum().backward()
    rows, columns = fake_rows(x.detach()), fake_weight(layer.weight.detach())
    slope = 2 * (rows @ columns.T + layer.bias.detach())
    torch.testing.assert_close(x.grad, slope @ columns, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        layer.weight.grad, slope.flatten(0, 1).T @ rows.flatten(0, 1), rtol=1e-4, atol=1e-3
    )


def test_layers_are_as_before_when_it_is_off() -> None:
    layer, x = linear(0)
    plain = layer(x)
    fake = FakeQuantized([layer])
    fake.activate()
    fake.activate()
    assert not torch.equal(layer(x), plain)
    fake.deactivate()
    assert torch.equal(layer(x), plain)
    assert "forward" not in vars(layer)


def test_the_recipe_says_which_layers() -> None:
    model = tiny_model("sequence-classification")
    rule = PrecisionRule(match="*.output.dense.weight", precision="f32")
    recipe = Recipe(default_precision="int8", precision=(rule,))
    names = set(quantized_linears(model, recipe))
    assert "bert.encoder.layer.0.intermediate.dense.weight" in names
    assert not any(name.endswith(".output.dense.weight") for name in names)
    assert "classifier.weight" not in names  # two outputs: no kernel takes it
    assert not quantized_linears(model, Recipe())
