from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.blocks import block_count, block_sums, expanded
from canao.search.accuracy.rebuilding import Moments, observe, rebuilt
from tests.search.accuracy.spaces import lively

BLOCK = (4, 16)


def drawn(seed: int, outputs: int, inputs: int) -> tuple[torch.Tensor, ...]:
    """(weight, bias, correlated inputs with a mean)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    mixing = torch.randn(inputs, inputs, generator=generator)
    tokens = torch.randn(200, inputs, generator=generator) @ mixing / inputs**0.5
    tokens += torch.randn(inputs, generator=generator)
    return weight, torch.randn(outputs, generator=generator), tokens


def moments(tokens: torch.Tensor) -> Moments:
    mean = tokens.mean(0)
    centred = tokens - mean
    return Moments(mean=mean, covariance=centred.t() @ centred / len(tokens))


@given(
    seed=st.integers(0, 2**16),
    outputs=st.integers(16, 50),
    inputs=st.integers(16, 50),
    density=st.sampled_from((1.0, 0.5, 0.25)),
)
def test_least_squares_come_nearer_than_zeroing(
    seed: int, outputs: int, inputs: int, density: float
) -> None:
    weight, bias, tokens = drawn(seed, outputs, inputs)
    found, shifted = rebuilt(weight, bias, moments(tokens), BLOCK, density)
    alive = block_sums((found != 0).float(), BLOCK) > 0
    panels, groups = block_count((outputs, inputs), BLOCK)
    assert int(alive.sum()) == round(density * panels * groups)
    wanted = tokens @ weight.t() + bias
    got = tokens @ found.t() + shifted
    assert torch.allclose(got.mean(0), wanted.mean(0), atol=1e-3)
    if density == 1.0:
        assert torch.allclose(found, weight, atol=1e-3)
        return
    zeroed = weight * expanded(alive, BLOCK, (outputs, inputs))
    plain = tokens @ zeroed.t() + bias
    assert (got - wanted).square().sum() <= (plain - wanted).square().sum()


def test_nothing_is_lost_where_inputs_say_the_same_twice() -> None:
    weight, bias, tokens = drawn(0, 16, 16)
    twice = torch.cat([tokens, tokens], dim=1)
    wide = torch.cat([weight, 0.1 * weight], dim=1)
    found, shifted = rebuilt(wide, bias, moments(twice), BLOCK, 0.5)
    wanted = twice @ wide.t() + bias
    error = (twice @ found.t() + shifted - wanted).square().mean()
    assert float(error) < 1e-3 * float(wanted.square().mean())


def test_tokens_of_padding_are_not_seen() -> None:
    model = lively()
    linear = model.bert.encoder.layer[1].intermediate.dense
    ids = torch.tensor([[2, 7, 8, 3, 0], [2, 9, 61, 40, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    seen: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    hook.remove()
    batch = {"input_ids": ids, "attention_mask": mask}
    [found] = observe(model, [linear], [batch, batch], bf16=False)
    wanted = moments(seen[0][mask.bool()])
    assert torch.allclose(found.mean, wanted.mean, atol=1e-5)
    assert torch.allclose(found.covariance, wanted.covariance, atol=1e-4)
    assert not linear._forward_pre_hooks
    with pytest.raises(IndexError):
        observe(model, [linear], [{**batch, "attention_mask": mask[:, :3]}], bf16=False)
    assert not linear._forward_pre_hooks
