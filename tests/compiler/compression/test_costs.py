"""Costs are those of what is computed and stored."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf
from torch.utils.flop_counter import FlopCounterMode

from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.compiler.compression.costs import model_costs
from canao.compiler.compression.recipe import PrecisionRule, Recipe, SparsityRule
from canao.compiler.compression.structured import prune_structured
from canao.errors import InputError
from canao.targets import PRECISIONS

from .. import families
from .models import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_what_pytorch_counts(family: str) -> None:
    task = "causal-lm" if family in families.DECODERS else "sequence-classification"
    for head in ("base", task):
        model = families.build(family, head)
        model.config._attn_implementation = "eager"
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=torch.ones((1, 12), dtype=torch.int64))
        costs = model_costs(model, 12)
        # Llama's angles of rotation are a product too, of positions and not of weights.
        assert 0 <= counter.get_total_flops() - costs.flops <= 2 * 12 * 8
        assert costs.params == sum(p.numel() for p in model.parameters())
        assert costs.bytes == 4 * costs.params
        assert json.loads(json.dumps(costs.to_json()))["flops"] == costs.flops


def test_the_encoder_of_the_benchmarks() -> None:
    config = tf.BertConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1920
    )
    with torch.device("meta"):
        model = tf.BertForQuestionAnswering(config)
    attention = 6 * 4 * 512 * 128**2
    assert model_costs(model, 128).flops - attention == pytest.approx(4.63e9, rel=1e-3)


def test_zero_blocks_cost_nothing() -> None:
    model = families.build("BERT")
    recipe = Recipe(sparsity=(SparsityRule(match="encoder.*", block=(4, 16), density=0.25),))
    dense = model_costs(model, 16)
    BlockSparsifier(model, recipe).step(1.0)
    sparse = model_costs(model, 16, recipe)
    in_layers = sum(
        p.numel() for n, p in model.named_parameters() if "encoder" in n and p.dim() > 1
    )
    assert dense.params - sparse.params == in_layers * 3 // 4
    assert dense.flops - sparse.flops == 2 * 16 * in_layers * 3 // 4
    assert sparse.bytes < dense.bytes


def test_half_a_model_costs_half() -> None:
    model = families.build("BERT")
    small = prune_structured(model, None, Recipe(heads=1, ffn=24))
    pooler = 2 * 32 * 32
    whole, half = (model_costs(one, 16).flops - pooler for one in (model, small))
    assert half * 2 == whole


def test_precisions_count_in_bytes() -> None:
    model = families.build("BERT")
    plain = model_costs(model, 8).bytes
    narrow = model_costs(model, 8, Recipe(default_precision="int8")).bytes
    least = model_costs(model, 8, Recipe(default_precision="int4-weights")).bytes
    assert least < narrow
    for precision in PRECISIONS:
        assert model_costs(model, 8, Recipe(default_precision=precision)).bytes <= plain
    rule = PrecisionRule(match="*query*", precision="f32")
    mixed = model_costs(model, 8, Recipe(default_precision="int8", precision=(rule,))).bytes
    assert narrow < mixed < plain
    assert mixed - narrow == 2 * (3 * 32 * 32 - 8 * 32)


def test_a_length_without_positions_is_refused() -> None:
    with pytest.raises(InputError, match="64 tokens"):
        model_costs(families.build("BERT"), 64)
