"""A teacher's targets, computed once for all rows and kept.

What is distilled from a teacher does not change from epoch to epoch, while a small student's own
pass costs less than the teacher's. Where the targets of all rows fit into a quarter of the
machine's memory they are computed in one pass before the training, in an order that depends on
the rows alone, so that a training that goes on gets the very same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ..tasks import Feature
from ..tasks.batching import length_batches
from .batches import SEQUENCE, Collator
from .student import LABELS, Targets, Teacher

__all__ = ["RememberedTeacher", "remember"]

_SHARE = 4
_BATCH = 32


@dataclass(frozen=True)
class _Kept:
    """One feature's targets: [tokens, ...], or [...] for logits of the whole text."""

    logits: dict[str, torch.Tensor]
    hidden: dict[int, torch.Tensor]
    projections: dict[int, tuple[torch.Tensor, ...]]

    @property
    def bytes(self) -> int:
        tensors = [*self.logits.values(), *self.hidden.values()]
        tensors += [one for parts in self.projections.values() for one in parts]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class RememberedTeacher:
    """Gives the targets of features by their numbers."""

    def __init__(self, kept: Sequence[_Kept]) -> None:
        self._kept = kept

    def __call__(self, sequences: torch.Tensor, length: int) -> Targets:
        """Targets of the features ``sequences`` [rows], padded with zeros to ``length`` tokens."""
        rows = [self._kept[number] for number in sequences.tolist()]
        first = rows[0]

        def logits(name: str) -> torch.Tensor:
            found = [row.logits[name] for row in rows]
            by_token = name != "logits" or found[0].ndim == 2
            return _padded(found, length) if by_token else torch.stack(found)

        return Targets(
            logits={name: logits(name) for name in first.logits},
            hidden={
                place: _padded([row.hidden[place] for row in rows], length)
                for place in first.hidden
            },
            projections={
                place: tuple(
                    _padded([row.projections[place][part] for row in rows], length)
                    for part in range(len(parts))
                )
                for place, parts in first.projections.items()
            },
        )


def remember(
    teacher: Teacher,
    features: Sequence[Feature],
    collate: Collator,
    *,
    autocast: Callable[[], AbstractContextManager[None]],
    most_bytes: int | None = None,
) -> RememberedTeacher | None:
    """Ask ``teacher`` for all ``features``; None where they take more than ``most_bytes`` (None:
    a quarter of the machine's memory), which the first batch, of the longest, already shows."""
    room = _memory() // _SHARE if most_bytes is None else most_bytes
    lengths = [len(feature["input_ids"]) for feature in features]
    kept: dict[int, _Kept] = {}
    for order in length_batches(lengths, _BATCH):
        batch = collate([features[number] for number in order])
        inputs = {name: batch[name] for name in batch if name not in (*LABELS, SEQUENCE)}
        with autocast():
            targets = teacher(inputs)
        for row, number in enumerate(order):
            kept[number] = _one(targets, row, lengths[number])
        if len(kept) == len(order):
            tokens = sum(lengths[number] for number in order)
            size = sum(one.bytes for one in kept.values())
            if size * sum(lengths) / tokens > room:
                return None
    return RememberedTeacher([kept[number] for number in range(len(features))])


def _one(targets: Targets, row: int, tokens: int) -> _Kept:
    """What a batch's targets say of one of its rows; copies, so that the batch's can go."""

    def real(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[row, :tokens].clone()

    return _Kept(
        logits={
            name: real(one) if name != "logits" or one.ndim == 3 else one[row].clone()
            for name, one in targets.logits.items()
        },
        hidden={place: real(one) for place, one in targets.hidden.items()},
        projections={
            place: tuple(real(part) for part in parts)
            for place, parts in targets.projections.items()
        },
    )


def _padded(tensors: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """[rows, length, ...] of tensors [tokens, ...]."""
    first = tensors[0]
    found = first.new_zeros((len(tensors), length, *first.shape[1:]))
    for row, tensor in enumerate(tensors):
        found[row, : len(tensor)] = tensor
    return found


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
