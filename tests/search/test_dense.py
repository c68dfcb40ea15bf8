from __future__ import annotations

import pytest
import torch
import transformers as tf

from canao.compiler.compression.costs import model_costs
from canao.compiler.compression.recipe import EmbeddingRecipe, PrecisionRule, Recipe
from canao.compiler.compression.structured import prune_structured
from canao.search.dense import dense_of_equal_flops, unequal
from tests.search.support import tiny_model

LENGTH = 32
SIZES = {
    "vocab_size": 99,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "intermediate_size": 192,
    "max_position_embeddings": 64,
}


def bert(layers: int = 2) -> tf.PreTrainedModel:
    config = tf.BertConfig(**SIZES, num_hidden_layers=layers)
    return tf.BertForSequenceClassification(config)


def llama() -> tf.PreTrainedModel:
    config = tf.LlamaConfig(**SIZES, num_hidden_layers=2, num_key_value_heads=3)
    return tf.LlamaForCausalLM(config)


def gpt2() -> tf.PreTrainedModel:
    config = tf.GPT2Config(vocab_size=99, n_embd=96, n_layer=2, n_head=6, n_positions=64)
    return tf.GPT2LMHeadModel(config)


def share_of(model: tf.PreTrainedModel, recipe: Recipe, asked: float) -> float:
    """FLOPs over those that were asked for."""
    return model_costs(prune_structured(model, None, recipe), LENGTH).flops / asked


@pytest.mark.parametrize("kind", [bert, llama, gpt2])
@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
def test_a_dense_recipe_has_the_flops_that_were_asked_for(kind, share: float) -> None:  # type: ignore[no-untyped-def]
    model = kind()
    asked = share * model_costs(model, LENGTH).flops
    recipe = dense_of_equal_flops(model, Recipe(), int(asked), LENGTH)
    assert 0.9 < share_of(model, recipe, asked) <= 1
    assert not recipe.sparsity


@pytest.mark.parametrize("share", [0.9, 0.7, 0.55])
def test_so_has_one_of_a_tiny_model(share: float) -> None:
    model = tiny_model("sequence-classification")
    asked = share * model_costs(model, LENGTH).flops
    recipe = dense_of_equal_flops(model, Recipe(), int(asked), LENGTH)
    assert share_of(model, recipe, asked) <= 1
    assert not recipe.sparsity


@pytest.mark.parametrize("share", [0.5, 0.4, 0.3, 0.2])
def test_heads_go_in_steps_that_divide_the_width(share: float) -> None:
    model = bert()
    base = Recipe(hidden=48, heads=6)
    asked = share * model_costs(model, LENGTH).flops
    recipe = dense_of_equal_flops(model, base, int(asked), LENGTH)
    assert 0.9 < share_of(model, recipe, asked) <= 1
    assert recipe.hidden == 48


def test_heads_and_units_shrink_together_and_layers_after_them() -> None:
    model = bert(6)
    whole = model_costs(model, LENGTH).flops
    half = dense_of_equal_flops(model, Recipe(), whole // 2, LENGTH)
    assert (half.layers, half.heads) == (None, 3)
    quarter = dense_of_equal_flops(model, Recipe(layers=(0, 1, 2, 3, 4, 5)), whole // 4, LENGTH)
    assert quarter.layers == (0, 1, 3, 4)  # of those that the recipe names
    assert quarter.heads == 2
    twentieth = dense_of_equal_flops(model, Recipe(), whole // 20, LENGTH)
    assert twentieth.layers == 2


def test_a_rule_of_precision_goes_with_what_it_names() -> None:
    model = bert(6)
    rules = (
        PrecisionRule(match="*.layer.5.*", precision="f32"),
        PrecisionRule(match="*.layer.1.*", precision="f32"),
    )
    base = Recipe(default_precision="int8", precision=rules)
    quarter = model_costs(model, LENGTH).flops // 4
    recipe = dense_of_equal_flops(model, base, quarter, LENGTH)
    assert recipe.precision == rules[1:]
    prune_structured(model, None, recipe)  # which refuses what names nothing


def test_what_becomes_of_the_words_counts() -> None:
    config = tf.BertConfig(**SIZES, num_hidden_layers=2)
    model = tf.BertForMaskedLM(config)
    base = Recipe(embedding=EmbeddingRecipe(vocabulary=64))
    asked = model_costs(model, LENGTH).flops // 2
    with_fewer = dense_of_equal_flops(model, base, asked, LENGTH)
    with_all = dense_of_equal_flops(model, Recipe(), asked, LENGTH)
    shares = [share_of(model, one, asked) for one in (with_fewer, with_all)]
    assert shares[0] > 1 >= shares[1]  # what the scorer of words does without, the layers have
    ranked = Recipe(embedding=EmbeddingRecipe(rank=8))
    dense_of_equal_flops(bert(), ranked, asked, LENGTH)


def test_the_smallest_is_given_where_none_is_small_enough_and_told() -> None:
    model = bert()
    asked = model_costs(model, LENGTH).flops // 50
    recipe = dense_of_equal_flops(model, Recipe(), asked, LENGTH)
    found = round(share_of(model, recipe, asked) * asked)
    assert found > asked
    said = unequal(found, asked)
    assert said is not None
    assert "times its FLOPs" in said
    assert unequal(100, 100) is unequal(95, 100) is None


def test_the_teacher_stays_as_it_is() -> None:
    model = bert()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense_of_equal_flops(model, Recipe(), model_costs(model, LENGTH).flops // 3, LENGTH)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
