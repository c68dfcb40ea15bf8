from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.compiler.compression.low_rank import factorise_embedding
from canao.compiler.compression.structured import prune_structured
from canao.errors import InputError, UnsupportedError
from canao.search.accuracy.supernet import Supernet
from canao.search.space.architecture import Architecture, LayerShape
from canao.search.training.fake_quantization import FakeQuantized, quantized_linears
from tests.search.accuracy.spaces import architectures, dense_space, lively, scores, space

BATCH = {
    "input_ids": torch.tensor([[2, 7, 8, 3, 0], [2, 9, 61, 40, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
    "token_type_ids": torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]),
}
seeds = st.integers(0, 2**16)


def logits(model: Any, **changes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**{**BATCH, **changes}).logits
    return found


def states(model: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(name, id(p), tuple(p.shape)) for name, p in model.named_parameters()]


@given(seed=seeds, architecture=architectures(dense_space()))
def test_a_sub_network_is_what_pruning_leaves_and_the_whole_is_the_teacher(
    seed: int, architecture: Architecture
) -> None:
    teacher = lively(seed)
    importance = scores(teacher, seed)
    supernet = Supernet.of(teacher, importance)
    before = states(supernet.model)
    recipe = architecture.recipe(teacher.config)
    pruned = prune_structured(teacher, None, recipe, importance)
    with supernet.narrowed(architecture) as model:
        found = logits(model)
        shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [tuple(p.shape) for p in pruned.parameters()]
    assert torch.allclose(found, logits(pruned), atol=1e-4)
    assert states(supernet.model) == before
    assert torch.allclose(logits(supernet.model), logits(teacher), atol=1e-4)


@given(
    seed=seeds,
    architecture=architectures(space()) | architectures(space(rest="int8")),
)
def test_blocks_ranks_and_int8_are_those_of_compression(
    seed: int, architecture: Architecture
) -> None:
    model = lively(seed)
    supernet = Supernet(model, (2, 0, 1))
    recipe = architecture.recipe(model.config)
    # The first units of a supernet are those that stay: pruned by its own order.
    order = scores(model, seed)
    first = type(order)(
        heads=tuple(-torch.arange(2.0) for _ in range(3)),
        ffn=tuple(-torch.arange(48.0) for _ in range(3)),
        hidden=-torch.arange(32.0),
        layers=torch.tensor([1.0, 0.0, 2.0]),
    )
    pruned = prune_structured(model, None, recipe, first)
    if architecture.embedding_rank is not None:
        factorise_embedding(pruned, architecture.embedding_rank)
    if recipe.sparsity:
        BlockSparsifier(pruned, recipe).step(1.0)
    with supernet.narrowed(architecture) as narrow:
        wide = logits(narrow)
    assert torch.allclose(wide, logits(pruned), atol=1e-3)
    with torch.no_grad():  # bf16 rules narrow weights alone
        for number, layer in enumerate(pruned.bert.encoder.layer):
            shape = architecture.layers[number]
            for kind, linears in {
                "qkv": [getattr(layer.attention.self, n) for n in ("query", "key", "value")],
                "output": [layer.attention.output.dense],
                "up": [layer.intermediate.dense],
                "down": [layer.output.dense],
            }.items():
                for linear in linears:
                    if shape.form(kind).precision == "bf16":
                        linear.weight.copy_(linear.weight.bfloat16().float())
    with supernet.narrowed(architecture, stored=True) as narrow:
        found = logits(narrow)
    with FakeQuantized(list(quantized_linears(pruned, recipe).values())).on():
        wanted = logits(pruned)
    assert torch.allclose(found, wanted, atol=0.05, rtol=0.05)
    assert float((found - wanted).abs().max()) <= 1e-3 + 0.5 * float((wide - wanted).abs().max())


def test_gradients_reach_the_part_that_a_sub_network_has() -> None:
    supernet = Supernet(lively(), (0, 1, 2))
    small = Architecture(
        hidden=16,
        head_size=16,
        layers=(LayerShape(heads=1, ffn=16),) * 2,
        vocabulary=99,
        positions=64,
        seq_len=32,
    )
    with supernet.narrowed(small) as model:
        model(**BATCH).logits.square().sum().backward()
    layers = supernet.model.bert.encoder.layer
    gradient = layers[1].intermediate.dense.weight.grad
    assert gradient.shape == (48, 32)
    assert bool(gradient[:16, :16].abs().sum(0).all())
    assert not bool(gradient[16:].any())
    assert not bool(gradient[:, 16:].any())
    assert layers[2].intermediate.dense.weight.grad is None


def test_rows_of_a_cut_vocabulary_are_read_by_their_new_numbers() -> None:
    supernet = Supernet(lively(), (0, 1, 2))
    whole = Architecture(
        hidden=32,
        head_size=16,
        layers=(LayerShape(heads=2, ffn=48),) * 3,
        vocabulary=6,
        positions=64,
        seq_len=32,
    )
    rows = torch.tensor([0, 2, 3, 9, 40, 61])
    ids = torch.tensor([[1, 3, 2, 0, 0], [1, 4, 5, 2, 0]])
    with supernet.narrowed(whole, rows=rows) as model:
        found = logits(model, input_ids=ids)
    assert torch.equal(found, logits(supernet.model, input_ids=rows[ids]))


def test_what_does_not_fit_is_refused_and_the_model_stays() -> None:
    supernet = Supernet(lively(), (0, 1, 2))
    before = states(supernet.model)
    wide = dense_space(ffn=(64,)).sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="ffn"), supernet.narrowed(wide):
        pass
    fitting = dense_space().sample(np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="inside"), supernet.narrowed(fitting):
        raise RuntimeError("inside")
    assert states(supernet.model) == before
    other = copy.deepcopy(supernet.model)
    other.config.model_type = "gpt2"
    with pytest.raises(UnsupportedError, match="gpt2"):
        Supernet(other, (0, 1, 2))
