from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.search.training import relations
from canao.search.training.losses import hidden_loss, logits_loss, task_loss
from canao.search.training.relations import relation_heads, relation_loss

seeds = st.integers(0, 2**16)


def randoms(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.floats(0.5, 8))
def test_logits_are_compared_as_hinton_wrote(seed: int, temperature: float) -> None:
    ours, theirs = randoms(seed, 4, 3), randoms(seed + 1, 4, 3)
    batch = {"attention_mask": torch.ones(4, 5, dtype=torch.int64)}
    found = logits_loss(
        "sequence-classification", {"logits": ours}, {"logits": theirs}, batch, temperature
    )
    p = np.exp(theirs.double().numpy() / temperature)
    q = np.exp(ours.double().numpy() / temperature)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    wanted = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert float(found) == pytest.approx(wanted, rel=1e-3, abs=1e-5)


@given(seeds)
def test_padding_counts_in_no_term(seed: int) -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    ours, theirs = randoms(seed, 2, 5, 8), randoms(seed + 1, 2, 5, 8)
    other = torch.where(mask[..., None] == 0, randoms(seed + 2, 2, 5, 8), ours)
    assert hidden_loss(ours, theirs, mask) == hidden_loss(other, theirs, mask)
    before, after = (relation_loss(x, theirs, mask, 4) for x in (ours, other))
    assert float(before) == pytest.approx(float(after), rel=1e-5)
    ends = [{"start_logits": x[..., 0], "end_logits": x[..., 1]} for x in (ours, other, theirs)]
    batch = {"attention_mask": mask}
    one, two = (logits_loss("question-answering", x, ends[2], batch, 2.0) for x in ends[:2])
    assert float(one) == pytest.approx(float(two), rel=1e-5)


@given(seeds, st.sampled_from([1, 2, 4]))
def test_relations_are_those_of_minilm(seed: int, heads: int) -> None:
    """Widths may differ; the formula, written out row by row."""
    ours, theirs = randoms(seed, 1, 4, 8), randoms(seed + 1, 1, 4, 16)
    mask = torch.tensor([[1, 1, 1, 0]])

    def relation(x: torch.Tensor, head: int, row: int) -> torch.Tensor:
        size = x.shape[-1] // heads
        part = x[0, :3, head * size : (head + 1) * size]
        return torch.softmax(part @ part[row] / math.sqrt(size), 0)

    total = 0.0
    for head in range(heads):
        for row in range(3):
            p, q = relation(theirs, head, row), relation(ours, head, row)
            total += float((p * (p / q).log()).sum())
    found = relation_loss(ours, theirs, mask, heads)
    assert float(found) == pytest.approx(total / (3 * heads), rel=1e-4, abs=1e-6)


def plain_relation_loss(
    ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    def logs(x: torch.Tensor) -> torch.Tensor:
        split = x.unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
        return scores.masked_fill(mask[:, None, None] == 0, -1e4).log_softmax(-1)

    p, q = logs(ours), logs(theirs)
    divergence = (q.exp() * (q - p)).sum(-1) * mask[:, None]
    return divergence.sum() / (mask.sum() * heads).clamp(min=1)


@given(
    seeds,
    st.sampled_from([1, 2, 4]),
    st.lists(st.lists(st.sampled_from([0, 1]), min_size=6, max_size=6), min_size=1, max_size=5),
    st.sampled_from([1, 100, 2**18]),
    st.sampled_from([0.3, 1.0, 5.0]),
)
def test_relations_have_the_slope_that_autograd_finds(
    seed: int, heads: int, rows: list[list[int]], scores: int, size: float
) -> None:
    """However many rows are done at once, and whatever is padding."""
    mask = torch.tensor(rows)
    ours = (randoms(seed, len(rows), 6, 8) * size).double()
    theirs = (randoms(seed + 1, len(rows), 6, 16) * size).double()
    found, wanted = ours.clone().requires_grad_(), ours.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relations, "_SCORES", scores)
        loss = relation_loss(found, theirs, mask, heads)
    plain = plain_relation_loss(wanted, theirs, mask, heads)
    assert float(loss) == pytest.approx(float(plain), rel=1e-4, abs=1e-5)
    (3 * loss).backward()
    (3 * plain).backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)


@given(seeds)
def test_who_answers_alike_loses_nothing(seed: int) -> None:
    x, mask = randoms(seed, 2, 5, 8), torch.ones(2, 5, dtype=torch.int64)
    assert float(hidden_loss(x, x, mask)) == 0
    assert float(relation_loss(x, x, mask, 2)) == pytest.approx(0, abs=1e-6)
    logits = {"logits": x[:, 0]}
    batch = {"attention_mask": mask}
    for kind in ("sequence-classification", "regression"):
        assert float(logits_loss(kind, logits, logits, batch, 2.0)) == pytest.approx(0, abs=1e-6)


def test_labels_of_each_kind() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [5.0, 0.0]]])
    batch = {"labels": torch.tensor([[0, 1, -100]])}
    wanted = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))) / 2
    outputs = {"logits": logits}
    assert float(task_loss("token-classification", outputs, batch)) == pytest.approx(wanted)
    # A causal model's output at a place is for the next one.
    assert float(task_loss("causal-lm", outputs, batch)) == pytest.approx(
        math.log(1 + math.exp(2))
    )
    scores = {"logits": torch.tensor([[1.0], [3.0]])}
    given_ = {"labels": torch.tensor([1.0, 5.0])}
    assert float(task_loss("regression", scores, given_)) == pytest.approx(2.0)


def test_heads_of_relations_divide_both_widths() -> None:
    assert relation_heads(192, 384, 12) == 12
    assert relation_heads(96, 384, 12) == 12
    assert relation_heads(160, 384, 12) == 8
    assert relation_heads(7, 384, 12) == 1
