from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.compiler.compression.blocks import block_sums
from canao.compiler.compression.costs import model_costs
from canao.compiler.compression.importance import magnitude_importance
from canao.compiler.compression.loading import load_compressed
from canao.compiler.compression.matching import matrices, rule_for
from canao.compiler.compression.saving import save_compressed
from canao.compiler.compression.structure import structure_of
from canao.compiler.compression.validation import kept_blocks
from canao.errors import InputError
from canao.search.space.architecture import Architecture
from canao.search.space.models import fresh_model, sub_network
from canao.search.space.space import ArchitectureSpace

from ...profiles import compiling
from .spaces import architectures, tiny

_CONFIG = transformers.BertConfig(
    vocab_size=500,
    hidden_size=96,
    num_hidden_layers=2,
    num_attention_heads=6,
    intermediate_size=192,
    max_position_embeddings=32,
    initializer_range=0.2,
)


def teacher() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return transformers.BertForSequenceClassification(_CONFIG).eval()


def outputs(model: Any, tokens: int = 500) -> torch.Tensor:
    ids = torch.randint(1, tokens, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids)[0]
    return found


@given(architectures())
def test_costs_are_those_of_the_model(architecture: Architecture) -> None:
    model = fresh_model(architecture)
    recipe = architecture.recipe()
    assert architecture.costs() == model_costs(model, architecture.seq_len, recipe)
    # Every rule fits something, and no block lives that the recipe does not keep.
    for name, weight in matrices(model).items():
        rule = rule_for(recipe.sparsity, name, model)
        if rule is None:
            assert bool((weight != 0).all())
        else:
            alive = block_sums((weight.detach() != 0).float(), rule.block) > 0
            assert int(alive.sum()) == kept_blocks(rule, weight)
    if recipe.sparsity:
        BlockSparsifier(model, recipe)


@compiling()
@given(architectures(st.just(tiny())), st.integers(0, 99))
def test_fresh_models_follow_from_architecture_and_seed(
    architecture: Architecture, seed: int
) -> None:
    one, two = fresh_model(architecture, seed), fresh_model(architecture, seed)
    assert torch.equal(outputs(one), outputs(two))
    other = fresh_model(architecture, seed + 1)
    assert not torch.equal(outputs(one), outputs(other))
    for name, weight in matrices(one).items():
        assert torch.equal(weight == 0, matrices(other)[name] == 0)


@compiling()
@given(architectures(st.just(tiny(heads=(2, 3, 6)))))
def test_a_sub_network_has_the_architecture_and_the_teachers_weights(
    architecture: Architecture,
) -> None:
    model, whole = sub_network(teacher(), architecture), teacher()
    recipe = architecture.recipe(_CONFIG)
    recipe.validate(_CONFIG)
    structure = structure_of(model)
    assert structure.heads == tuple(layer.heads for layer in architecture.layers)
    assert structure.ffn == tuple(layer.ffn for layer in architecture.layers)
    assert structure.hidden == architecture.hidden
    assert model_costs(model, architecture.seq_len, recipe) == architecture.costs()
    known = np.concatenate([p.detach().numpy().ravel() for p in whole.parameters()])
    found = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert np.isin(found[found != 0], known).all()


def test_where_nothing_is_cut_the_sub_network_is_the_teacher(tmp_path: Path) -> None:
    space = ArchitectureSpace.of_teacher(_CONFIG)
    largest = {decision.name: decision.choices[-1] for decision in space.decisions()}
    largest |= {name: 1.0 for name in largest if name.endswith("density")}
    architecture = space.build(largest | {"embedding_int8": False})
    model = sub_network(teacher(), architecture)
    assert torch.equal(outputs(model), outputs(teacher()))
    assert architecture.recipe(_CONFIG).heads is None


def test_a_sub_network_reloads(tmp_path: Path) -> None:
    space = tiny(embedding_ranks=(8,), vocabularies=(300,))
    for seed in range(3):
        architecture = space.sample(np.random.default_rng(seed))
        tokens = list(range(100, 400))
        model = sub_network(
            teacher(), architecture, magnitude_importance(teacher()), tokens=tokens
        )
        recipe = architecture.recipe(_CONFIG)
        place = save_compressed(model, None, tmp_path / f"model-{seed}", recipe)
        again = load_compressed(place)
        assert torch.equal(outputs(again, 300), outputs(model, 300))
        assert model_costs(again, architecture.seq_len, recipe) == architecture.costs()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden": 192}, "hidden: the architecture has 192, the teacher 96"),
        ({"head_size": 32}, "head_size is 32, but the teacher's heads are of 16"),
        ({"positions": 64}, "positions: the architecture has 64, the teacher 32"),
        ({"head": "question-answering"}, "head: the architecture's is question-answering"),
        ({"labels": 3}, "labels: the architecture has 3, the teacher 2"),
        ({"vocabulary": 400}, "say by `tokens`"),
    ],
)
def test_what_the_teacher_has_not_is_refused(changed: dict[str, Any], said: str) -> None:
    architecture = tiny().sample(np.random.default_rng(0))
    with pytest.raises(InputError, match=said):
        sub_network(teacher(), dataclasses.replace(architecture, **changed))
