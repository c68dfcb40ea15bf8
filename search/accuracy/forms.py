"""What a weight becomes in the form that an architecture gives it: blocks gone, numbers narrow.

The same rules as in compression and in the compiler, without a step of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...compiler.compression.blocks import block_sums, expanded
from ...compiler.quantization.fake import fake_rows, fake_weight
from ...compiler.quantization.grids import nearest
from ...compiler.quantization.sites import LEAST
from ...compiler.quantization.tables import LEAST_TABLE

__all__ = ["as_stored", "blocks_kept", "narrow_inputs", "reads_int8", "stored_table", "word_basis"]


def blocks_kept(weight: torch.Tensor, block: tuple[int, int], density: float) -> torch.Tensor:
    """Which elements of a weight [outputs, inputs] stay: those of the blocks (inputs, outputs)
    with the largest squares, as `BlockSparsifier` ends with; bool, the weight's shape."""
    scores = block_sums(weight.detach().square(), block)
    count = round(density * scores.numel())
    kept = torch.argsort(scores.flatten(), descending=True, stable=True)[:count]
    alive = torch.zeros(scores.numel(), dtype=torch.bool)
    alive[kept] = True
    return expanded(alive.reshape(scores.shape), block, (weight.shape[0], weight.shape[1]))


def as_stored(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """The values that a bundle would have of a weight [outputs, inputs], in the weight's dtype.

    Weights narrower than 16 stay as they are, as the compiler leaves them.
    """
    if precision == "f32" or min(weight.shape) < LEAST:
        return weight
    if precision in ("bf16", "f16"):
        kind = torch.bfloat16 if precision == "bf16" else torch.float16
        return weight.to(kind).to(weight.dtype)
    return nearest(weight, 4) if precision == "int4-weights" else fake_weight(weight)


def reads_int8(weight: torch.Tensor, precision: str) -> bool:
    """Whether a product by ``weight`` is of 8 bits on both sides."""
    return precision == "int8" and min(weight.shape) >= LEAST


@contextmanager
def narrow_inputs(linears: Iterable[nn.Linear]) -> Iterator[None]:
    """Inside the block these layers read activations of 8 bits, with a scale for each row."""

    def narrow(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        del module
        return (fake_rows(given[0].float()), *given[1:])

    hooks = [linear.register_forward_pre_hook(narrow) for linear in linears]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def word_basis(table: torch.Tensor) -> torch.Tensor:
    """The right singular vectors [H, H] of a table of words [V, H], the largest value first."""
    wide = table.detach().double()
    values, vectors = torch.linalg.eigh(wide.t() @ wide)
    basis: torch.Tensor = vectors[:, values.argsort(descending=True)].to(table.dtype)
    return basis


def stored_table(
    table: torch.Tensor,
    basis: torch.Tensor | None,
    *,
    rank: int | None,
    int8: bool,
    precision: str,
) -> torch.Tensor:
    """A table of words [V, H] as it is computed with: of ``rank``, in 8 bits where it is large.

    ``basis`` is its `word_basis`, needed for a rank; ``precision`` that of the projection.
    """
    if rank is None or basis is None:
        return fake_weight(table) if int8 and table.numel() >= LEAST_TABLE else table
    factor = table @ basis[:, :rank]
    # The two factors share the singular values evenly, as `factorise_embedding` has it.
    sizes = factor.norm(dim=0).clamp_min(1e-30).sqrt()
    factor = factor / sizes
    if int8 and factor.numel() >= LEAST_TABLE:
        factor = fake_weight(factor)
    return factor @ as_stored(basis[:, :rank] * sizes, precision).t()
