"""A pruned model is the larger one with the same parts masked, and plain transformers reads it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.importance import (
    Importance,
    magnitude_importance,
    taylor_importance,
)
from canao.compiler.compression.recipe import Recipe
from canao.compiler.compression.structure import structure_of
from canao.compiler.compression.structured import prune_structured
from canao.errors import InputError, UnsupportedError

from .. import families
from .models import FAMILIES, GROUPED, lively, outputs, tokens


def drawn_importance(model: Any, seed: int) -> Importance:
    """Scores of which no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    structure = structure_of(model)

    def scores(count: int) -> torch.Tensor:
        return torch.randperm(count, generator=generator).float()

    return Importance(
        heads=tuple(scores(n) for n in structure.heads),
        ffn=tuple(scores(n) for n in structure.ffn),
        hidden=scores(structure.hidden),
        layers=scores(len(structure.layers)),
    )


def best(scores: torch.Tensor, count: int) -> set[int]:
    return set(scores.topk(count).indices.tolist())


def masked(model: Any, recipe: Recipe, scores: Importance) -> torch.Tensor:
    """Outputs of ``model`` where what the recipe drops is silenced by hooks."""
    layers = structure_of(model).layers
    count = recipe.layers if isinstance(recipe.layers, int) else len(layers)
    kept = sorted(best(scores.layers, count))
    hooks = []
    for number, layer in enumerate(layers):
        if number not in kept:
            hooks.append(layer.module.register_forward_hook(_passes))
            continue
        place = kept.index(number)
        assert isinstance(recipe.heads, tuple)
        assert isinstance(recipe.ffn, tuple)
        heads = best(scores.heads[number], recipe.heads[place])
        units = best(scores.ffn[number], recipe.ffn[place])
        size = layer.head_size
        alive = [place // size in heads for place in range(layer.heads * size)]
        silent = {
            layer.family.output: torch.tensor(alive),
            layer.family.ffn_out: torch.tensor([n in units for n in range(layer.ffn)]),
        }
        for path, mask in silent.items():
            hooks.append(
                layer.part(path).register_forward_pre_hook(
                    lambda _, given, mask=mask: (given[0] * mask,)
                )
            )
    found = outputs(model)
    for hook in hooks:
        hook.remove()
    return found


def _passes(module: Any, given: tuple[Any, ...], result: Any) -> Any:
    return (given[0], *result[1:]) if isinstance(result, tuple) else given[0]


@given(data=st.data(), family=st.sampled_from(FAMILIES), seed=st.integers(0, 99))
def test_pruning_is_masking(data: st.DataObject, family: str, seed: int) -> None:
    model = lively(family)
    layers = data.draw(st.integers(1, 2))
    least = 2 if family in GROUPED else 1
    sizes = structure_of(model)
    recipe = Recipe(
        layers=layers,
        heads=tuple(data.draw(st.integers(least, 2)) for _ in range(layers)),
        ffn=tuple(data.draw(st.integers(1, sizes.ffn[0])) for _ in range(layers)),
    )
    scores = drawn_importance(model, seed)
    pruned = prune_structured(model, None, recipe, scores)
    found = structure_of(pruned)
    assert (found.heads, found.ffn) == (recipe.heads, recipe.ffn)
    torch.testing.assert_close(outputs(pruned), masked(model, recipe, scores))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_width_is_cut(family: str) -> None:
    task = "causal-lm" if family in families.DECODERS else "masked-lm"
    for head in (families.heads_of(family)[:2][-1], task):
        model = families.build(family, head)
        before = [tuple(p.shape) for p in model.parameters()]
        kept = 2 if family in GROUPED else 1
        pruned = prune_structured(model, None, Recipe(hidden=16, heads=kept, layers=1))
        assert [tuple(p.shape) for p in model.parameters()] == before
        assert pruned.config.hidden_size == 16
        assert structure_of(pruned).hidden == 16
        assert outputs(pruned).shape[:2] == outputs(model).shape[:2]
        again = type(pruned)(pruned.config)
        again.load_state_dict(pruned.state_dict())
        torch.testing.assert_close(outputs(again.eval()), outputs(pruned))


@pytest.mark.parametrize("family", FAMILIES)
def test_first_order_scores_are_derivatives_by_gates(family: str) -> None:
    model = lively(family)
    ids = tokens(4, 7)

    def loss(found: Any, batch: Any) -> torch.Tensor:
        return found[0].square().mean()

    scores = taylor_importance(model, [{"input_ids": ids}], loss)
    layer = structure_of(model).layers[1]
    gates = {layer.family.output: layer.heads * layer.head_size, layer.family.ffn_out: layer.ffn}
    for (path, width), found in zip(gates.items(), (scores.heads[1], scores.ffn[1]), strict=True):
        gate = torch.ones(width, requires_grad=True)
        hook = layer.part(path).register_forward_pre_hook(lambda _, x, g=gate: (x[0] * g,))
        (slope,) = torch.autograd.grad(loss(model(input_ids=ids), None), [gate])
        hook.remove()
        expected = slope.reshape(len(found), -1).sum(1).abs()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    assert all(p.grad is None for p in model.parameters())
    assert len(scores.hidden) == 32


def test_importance_leaves_the_model_alone() -> None:
    model = lively("BERT", "sequence-classification").train()
    next(model.parameters()).requires_grad_(False)
    frozen = [p.requires_grad for p in model.parameters()]
    batch = {"input_ids": tokens(), "labels": torch.tensor([0, 1])}
    scores = taylor_importance(model, [batch, batch], weights=True)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == frozen
    name = "bert.encoder.layer.0.output.dense.weight"
    assert scores.blocks(name, (4, 16)).shape == (2, 12)
    with pytest.raises(InputError, match="no scores"):
        scores.blocks("nothing", (4, 16))


def test_importance_asks_for_data_and_a_loss() -> None:
    model = families.build("BERT")
    with pytest.raises(InputError, match="at least one batch"):
        taylor_importance(model, [])
    with pytest.raises(InputError, match="no loss"):
        taylor_importance(model, [{"input_ids": tokens()}])


def test_units_that_do_nothing_go_first() -> None:
    model = lively("BERT", "sequence-classification")
    layer = structure_of(model).layers[0]
    with torch.no_grad():
        layer.part("output.dense").weight[:, 5:] = 0
        layer.part("attention.output.dense").weight[:, 16:] = 0
    batch = {"input_ids": tokens(), "labels": torch.tensor([0, 1])}
    recipe = Recipe(heads=(1, 2), ffn=(5, 48))
    for scores in (magnitude_importance(model), taylor_importance(model, [batch])):
        pruned = prune_structured(model, None, recipe, scores)
        torch.testing.assert_close(outputs(pruned), outputs(model))


def test_named_layers_are_kept() -> None:
    model = lively("BERT")
    pruned = prune_structured(model, None, Recipe(layers=(1,)))
    kept, other = pruned.encoder.layer[0], model.encoder.layer[1]
    assert torch.equal(kept.output.dense.weight, other.output.dense.weight)
    assert kept.attention.self.layer_idx == 0


def test_scores_of_another_model_are_refused() -> None:
    scores = magnitude_importance(prune_structured(families.build("BERT"), None, Recipe(layers=1)))
    with pytest.raises(InputError, match="importance"):
        prune_structured(families.build("BERT"), None, Recipe(), scores)


def test_cross_attention_is_unsupported() -> None:
    import transformers as tf

    config = families.build("BERT").config
    config.is_decoder = config.add_cross_attention = True
    with pytest.raises(UnsupportedError, match="cross-attention"):
        prune_structured(tf.BertModel(config), None, Recipe(layers=1))
