"""Which axes of which parameters run over the hidden width, and which over the vocabulary.

Two models are built from the configuration, without weights, that differ in one size alone: the
axes along which their shapes differ are the axes of that size. So every head of every task is
right without a table of them.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn

from ...errors import UnsupportedError
from .low_rank import LowRankEmbedding
from .structure import structure_of

__all__ = ["axes_of"]

# Any two would do; with one head, every width is a multiple of the number of heads.
_SIZES = (64, 128)


def axes_of(model: Any, size: Literal["hidden", "vocabulary"]) -> dict[str, tuple[int, ...]]:
    """By name of a parameter of ``model``, its axes that run over ``size``.

    Axes that run over heads or feed-forward units do not count as hidden ones.
    Raises `UnsupportedError` where a parameter is not of the family's own making.
    """
    one, other = (_shapes(model, size, number) for number in _SIZES)
    inner = {id(p): axis for layer in structure_of(model).layers for p, axis in layer.inner()}
    factors = _factors(model)
    found: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        whole, axis = factors.get(name, (name, None))
        if whole not in one:
            raise UnsupportedError(
                f"Parameter {name!r} is none that transformers makes for "
                f"{type(model).__name__}: canao cannot tell what to cut of it."
            )
        pairs = enumerate(zip(one[whole], other[whole], strict=True))
        axes = tuple(axis for axis, (a, b) in pairs if a != b)
        if axis is not None:
            axes = (0,) if axis in axes else ()
        if size == "hidden" and id(parameter) in inner:
            axes = tuple(axis for axis in axes if axis != inner[id(parameter)])
        if axes:
            found[name] = axes
    return found


def _shapes(model: Any, size: str, number: int) -> dict[str, tuple[int, ...]]:
    config = copy.deepcopy(model.config)
    config.num_attention_heads = 1
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = 1
    if size == "vocabulary":
        config.vocab_size = 1024 + number  # beyond the id of any padding token
    else:
        if getattr(config, "embedding_size", None) == config.hidden_size:
            config.embedding_size = number
        config.hidden_size = number
    with torch.device("meta"):
        bare = type(model)(config)
    return {
        name: tuple(parameter.shape)
        for name, parameter in bare.named_parameters(remove_duplicate=False)
    }


def _factors(model: nn.Module) -> dict[str, tuple[str, int]]:
    """The two matrices of each factorised table: the table's own name, and its axis that is the
    first axis of the matrix."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, LowRankEmbedding):
            found[f"{path}.table.weight"] = (f"{path}.weight", 0)
            found[f"{path}.projection.weight"] = (f"{path}.weight", 1)
    return found
