"""Blocks go gradually, stay away, and lie denser after reordering; the function stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.block_sparsity import BlockSparsifier, Method
from canao.compiler.compression.blocks import block_count, block_sums, expanded
from canao.compiler.compression.matching import matrices
from canao.compiler.compression.recipe import Recipe, SparsityRule
from canao.compiler.compression.reorder import reorder_units
from canao.compiler.kernels.sparse_choice import cuts
from canao.compiler.sparsity import by_parameter, count_blocks
from canao.errors import InputError

from .. import families
from .models import FAMILIES, lively, outputs, tokens


def rules(match: str = "*", block: tuple[int, int] = (4, 16), density: float = 0.5) -> Recipe:
    return Recipe(sparsity=(SparsityRule(match=match, block=block, density=density),))


@given(
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 70),
    block=st.tuples(st.integers(1, 20), st.integers(1, 60)),
)
def test_blocks_cover_a_weight(outputs: int, inputs: int, block: tuple[int, int]) -> None:
    weight = torch.arange(outputs * inputs, dtype=torch.float64).reshape(outputs, inputs)
    sums = block_sums(weight, block)
    assert tuple(sums.shape) == block_count((outputs, inputs), block)
    assert float(sums.sum()) == float(weight.sum())
    assert float(sums[0, 0]) == float(weight[: block[1], : block[0]].sum())
    places = torch.arange(sums.numel()).reshape(sums.shape)
    spread = expanded(places, block, (outputs, inputs))
    assert tuple(spread.shape) == (outputs, inputs)
    assert spread[-1, -1] == sums.numel() - 1


@given(
    density=st.floats(0.1, 0.9),
    steps=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    method=st.sampled_from(("magnitude", "movement")),
)
def test_density_falls_to_the_recipes(density: float, steps: list[float], method: Method) -> None:
    model = families.build("BERT")
    sparsifier = BlockSparsifier(model, rules("*output.dense*", density=density), method=method)
    before: dict[str, torch.Tensor] = {}
    for progress in (*sorted(steps), 1.0):
        sparsifier.step(progress)
        wanted = density + (1 - density) * (1 - progress) ** 3
        masks = sparsifier.masks()
        for name, found in sparsifier.densities().items():
            count = masks[name].numel() / 64
            assert abs(found - wanted) * count <= 0.5 + 1e-6
            assert not bool((masks[name] & ~before.get(name, masks[name])).any())
            assert bool((model.get_parameter(name)[~masks[name]] == 0).all())
        before = masks
    assert set(before) == {name for name in matrices(model) if "output.dense" in name}


def test_the_compiler_sees_the_blocks_that_are_gone() -> None:
    model = lively("BERT")
    sparsifier = BlockSparsifier(model, rules(density=0.25))
    sparsifier.step(1.0)
    weights = {name: p.detach() for name, p in matrices(model).items()}
    counts = by_parameter(count_blocks(weights))
    for name, mask in sparsifier.masks().items():
        cut = next(cut for cut in cuts() if cut == (4, 16, 1))
        assert counts[name][cut] == int((block_sums(mask.float(), (4, 16)) > 0).sum())


def test_an_optimisers_step_is_undone() -> None:
    model = lively("BERT")
    sparsifier = BlockSparsifier(model, rules())
    sparsifier.step(1.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model(input_ids=tokens())[0].square().mean().backward()
    optimiser.step()
    sparsifier.apply()
    for name, mask in sparsifier.masks().items():
        assert bool((model.get_parameter(name)[~mask] == 0).all())


def test_movement_keeps_what_training_makes_larger() -> None:
    model = families.build("BERT")
    name = "encoder.layer.0.output.dense.weight"
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight.fill_(0.1)
    sparsifier = BlockSparsifier(model, rules(name), method="movement")
    weight.grad = torch.ones_like(weight)
    weight.grad[:16] = -1  # a step against the gradient makes these larger, the others smaller
    sparsifier.accumulate()
    sparsifier.step(1.0)
    assert bool(sparsifier.masks()[name][:16].all())
    assert not bool(sparsifier.masks()[name][16:].any())


@pytest.mark.parametrize("method", ["magnitude", "movement"])
def test_a_state_goes_on_where_it_was(method: Method, tmp_path: Any) -> None:
    model = lively("BERT")
    sparsifier = BlockSparsifier(model, rules(), method=method)
    model(input_ids=tokens())[0].square().mean().backward()
    sparsifier.accumulate()
    sparsifier.step(0.5)
    torch.save(sparsifier.state_dict(), tmp_path / "state")
    other = BlockSparsifier(copy.deepcopy(model), rules(), method=method)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    sparsifier.step(1.0)
    other.step(1.0)
    for name, mask in sparsifier.masks().items():
        assert torch.equal(mask, other.masks()[name])
    with pytest.raises(InputError, match="another model"):
        BlockSparsifier(families.build("ELECTRA"), rules()).load_state_dict(other.state_dict())


def test_wrong_calls_are_refused() -> None:
    model = families.build("BERT")
    with pytest.raises(InputError, match="no rule"):
        BlockSparsifier(model, Recipe())
    with pytest.raises(InputError, match="no kernel"):
        BlockSparsifier(model, rules(block=(1, 1)))
    with pytest.raises(InputError, match="Progress"):
        BlockSparsifier(model, rules()).step(1.5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "GPT-2"])
@pytest.mark.parametrize("block", [(4, 16), (8, 4)])
def test_reordering_keeps_the_function(family: str, block: tuple[int, int]) -> None:
    model = lively(family)
    before = outputs(model)
    moved = copy.deepcopy(model)
    assert reorder_units(moved, rules(block=block)) > 0
    torch.testing.assert_close(outputs(moved), before, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 999), density=st.sampled_from((0.3, 0.5, 0.7)))
def test_reordering_never_loses_weight(seed: int, density: float) -> None:
    torch.manual_seed(seed)
    model = families.build("BERT", seed=seed)
    recipe = rules("*[io]nt*dense*", density=density)
    moved = copy.deepcopy(model)
    changed = reorder_units(moved, recipe)
    kept = []
    for one in (model, moved):
        total = sum(float(p.detach().square().sum()) for p in matrices(one).values())
        BlockSparsifier(one, recipe).step(1.0)
        kept.append(sum(float(p.detach().square().sum()) for p in matrices(one).values()) / total)
    assert kept[1] >= kept[0] * (1 - 1e-6) if changed == 0 else kept[1] > kept[0]


def test_mixed_units_are_sorted_into_whole_blocks() -> None:
    model = families.build("BERT")
    inner, outer = model.encoder.layer[0].intermediate.dense, model.encoder.layer[0].output.dense
    with torch.no_grad():
        inner.weight[::2] *= 1e-3
        outer.weight[:, ::2] *= 1e-3
    recipe = rules("encoder.layer.0.*e*.dense.weight", density=0.5)
    reorder_units(model, recipe)
    before = inner.weight.detach().clone()
    BlockSparsifier(model, recipe).step(1.0)
    lost = (before - inner.weight.detach()).square().sum() / before.square().sum()
    assert lost < 0.2
