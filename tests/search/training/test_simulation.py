from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

from canao.compiler.compression.costs import model_costs
from canao.compiler.compression.recipe import PrecisionRule, Recipe
from canao.compiler.quantization.fake import bf16_rows, fake_rows, fake_weight
from canao.compiler.quantization.grids import nearest
from canao.search.training.fake_quantization import FakeQuantized, quantized_linears
from canao.search.training.simulation import as_compiled, precision_told
from tests.search.support import tiny_model

IDS = torch.arange(3, 27).reshape(2, 12)
NARROW = ("bf16", "f16", "int8", "int8-weights", "int4-weights")


def gpt2() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tf.GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, n_positions=64)
        return tf.GPT2LMHeadModel(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("make", [lambda: tiny_model("sequence-classification"), gpt2])
def test_every_precision_changes_the_answers_and_leaves_the_model(make: Any) -> None:
    model = make()
    exact = logits(model)
    errors = {}
    for precision in NARROW:
        with as_compiled(model, Recipe(default_precision=precision)):
            errors[precision] = float((logits(model) - exact).abs().max())
        assert torch.equal(logits(model), exact)
    assert 0 < errors["f16"] < errors["bf16"] < errors["int4-weights"]
    assert errors["int8-weights"] < errors["int4-weights"]
    with as_compiled(model, Recipe()):
        assert torch.equal(logits(model), exact)


@pytest.mark.parametrize(
    ("precision", "rows", "weight"),
    [
        ("bf16", bf16_rows, bf16_rows),
        ("int8", fake_rows, fake_weight),
        ("int8-weights", bf16_rows, lambda w: bf16_rows(nearest(w, 8))),
        ("int4-weights", bf16_rows, lambda w: bf16_rows(nearest(w, 4))),
    ],
)
def test_a_product_is_that_of_its_kernel(precision: str, rows: Any, weight: Any) -> None:
    model = gpt2()
    layer = model.transformer.h[0].mlp.c_fc  # [inputs, outputs]
    x = torch.randn(3, 5, 32)
    with as_compiled(model, Recipe(default_precision=precision)), torch.no_grad():
        found = layer(x)
    wanted = rows(x) @ weight(layer.weight.detach().T).T + layer.bias.detach()
    torch.testing.assert_close(found, wanted)


def test_a_rule_keeps_a_matrix_as_it_says() -> None:
    model = gpt2()
    rule = PrecisionRule(match="*.c_fc.weight", precision="f32")
    recipe = Recipe(default_precision="int4-weights", precision=(rule,))
    recipe.validate(model.config)  # one of Conv1D can be named
    layer, x = model.transformer.h[0].mlp.c_fc, torch.randn(1, 4, 32)
    exact = layer(x)
    with as_compiled(model, recipe):
        assert torch.equal(layer(x), exact)


def test_int8_is_trained_and_counted_in_gpt2_too() -> None:
    model = gpt2()
    recipe = Recipe(default_precision="int8")
    names = set(quantized_linears(model, recipe))
    assert {"transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_proj.weight"} < names
    assert model_costs(model, 16, recipe).bytes < 0.6 * model_costs(model, 16).bytes
    layer, x = model.transformer.h[0].mlp.c_fc, torch.randn(3, 5, 32)
    with as_compiled(model, recipe):
        wanted = layer(x)
    with FakeQuantized([layer]).on():
        found = layer(x)
        found.square().sum().backward()
    torch.testing.assert_close(found, wanted)
    assert layer.weight.grad.shape == layer.weight.shape


def test_what_is_told_of_the_precision() -> None:
    assert precision_told(Recipe()) == "float32"
    assert precision_told(Recipe(default_precision="bf16")) == "bf16, simulated"
    rule = PrecisionRule(match="*", precision="int8")
    assert precision_told(Recipe(precision=(rule,))) == "int8, simulated"
