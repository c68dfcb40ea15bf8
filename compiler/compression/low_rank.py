"""A table of words as the product of two smaller ones.

E [V, H] becomes T [V, r] x P [r, H], by the singular values of E: no pair of matrices of rank r
is nearer to E in the Frobenius norm (Eckart and Young 1936).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import InputError, UnsupportedError

__all__ = ["LowRankEmbedding", "factorise_embedding", "word_table"]


class LowRankEmbedding(nn.Module):
    """ids [...] -> [..., H] through a table [V, r] and a projection from r to H."""

    def __init__(self, tokens: int, rank: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, rank)
        self.projection = nn.Linear(rank, width, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look rows up, then widen them."""
        found: torch.Tensor = self.projection(self.table(ids))
        return found


def word_table(model: Any) -> tuple[nn.Module, str, Any]:
    """(the module that holds a model's table of words, its name there, the table)."""
    table = model.get_input_embeddings()
    path = next(name for name, module in model.named_modules() if module is table)
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name, table


def factorise_embedding(model: Any, rank: int) -> None:
    """Put a `LowRankEmbedding` of ``rank`` in the place of the table of words, in place.

    Raises `InputError` where ``rank`` saves nothing, `UnsupportedError` where the table is also
    the weight that scores words, or is factorised already.
    """
    parent, name, table = word_table(model)
    check_rank(model, table, rank)
    weight = table.weight.detach()
    factorised = LowRankEmbedding(weight.shape[0], rank, weight.shape[1])
    factorised = factorised.to(device=weight.device, dtype=weight.dtype)
    if weight.device.type != "meta":
        # The eigenvectors of E^T E [H, H] are E's right singular vectors; H is small, V is not.
        values, vectors = torch.linalg.eigh(weight.double().t() @ weight.double())
        kept = vectors[:, values.argsort(descending=True)[:rank]]
        sizes = (weight.double() @ kept).norm(dim=0).clamp_min(1e-30).sqrt()
        with torch.no_grad():
            factorised.table.weight.copy_(weight.double() @ kept / sizes)
            factorised.projection.weight.copy_(kept * sizes)
    for parameter in factorised.parameters():
        parameter.requires_grad_(table.weight.requires_grad)
    setattr(parent, name, factorised.train(table.training))


def check_rank(
    model: Any, table: Any, rank: int, *, tokens: int | None = None, width: int | None = None
) -> None:
    """Raise where `factorise_embedding` cannot; ``tokens`` and ``width`` if the table is cut."""
    if isinstance(table, LowRankEmbedding):
        raise UnsupportedError(
            "embedding.rank: this model's table of words is factorised already; leave it out."
        )
    tokens, width = tokens or table.weight.shape[0], width or table.weight.shape[1]
    if rank >= width or rank * (tokens + width) >= tokens * width:
        raise InputError(
            f"embedding.rank {rank} saves nothing on a table of {tokens} x {width}: take a "
            f"smaller one, or leave it out."
        )
    sharing = [
        path
        for path, module in model.named_modules()
        if module is not table and getattr(module, "weight", None) is table.weight
    ]
    if sharing:
        raise UnsupportedError(
            f"embedding.rank: the table of words is also the weight of {sharing[0]}, which "
            "scores words; a factorised table cannot be. Leave the rank out for this head."
        )
