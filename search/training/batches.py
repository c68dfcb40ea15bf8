"""Batches of features: padded to their longest, made of rows of about equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from ..tasks import Feature, collate

__all__ = ["MULTIPLE", "SEQUENCE", "Batches", "Collator", "Padding", "padding_of"]

MULTIPLE = 8
"""Lengths of batches are multiples of it: few shapes, each of which kernels prepare for once."""

SEQUENCE = "sequence"
"""A feature's number, where features are numbered; the batch has a tensor [rows] of them."""

_IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Features to tensors [rows, tokens] (labels of a row: [rows]), at most ``longest`` long."""

    inputs: tuple[str, ...]
    pad_id: int
    longest: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        """The batch: int64, scores float32."""
        batch = collate(features, inputs=self.inputs, pad_id=self.pad_id)
        tokens = batch["input_ids"].shape[1]
        more = max(0, min(-(-tokens // MULTIPLE) * MULTIPLE, self.longest) - tokens)
        fill = {"input_ids": self.pad_id, "labels": _IGNORED}
        if SEQUENCE in features[0]:
            batch[SEQUENCE] = np.array([feature[SEQUENCE] for feature in features], np.int64)
        return {
            name: torch.from_numpy(
                np.pad(array, ((0, 0), (0, more)), constant_values=fill.get(name, 0))
                if array.ndim == 2
                else array
            )
            for name, array in batch.items()
        }


class Batches(Sampler[int]):
    """The order of the rows of an epoch: a function of the seed and the epoch alone.

    So a training that goes on at any step sees the rows that it would have seen. With
    ``bucketing``, rows of about equal length are neighbours: transformers' own grouping (shuffled,
    then sorted within 50 batches), its batches then in random order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, *, bucketing: bool) -> None:
        self._lengths = list(lengths)
        self._batch = batch
        self._seed = seed
        self._bucketing = bucketing
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        if not self._bucketing:
            yield from torch.randperm(len(self._lengths), generator=generator).tolist()
            return
        order = get_length_grouped_indices(self._lengths, self._batch, generator=generator)
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        whole = len(order) // self._batch
        for index in torch.randperm(whole, generator=generator).tolist():
            yield from batches[index]
        for rest in batches[whole:]:
            yield from rest


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Tokens of one epoch: real ones, and what batches take with and without bucketing."""

    real: int
    bucketed: int
    shuffled: int

    @property
    def saved(self) -> float:
        """The share of the shuffled batches' tokens that bucketing does without."""
        return 1 - self.bucketed / self.shuffled if self.shuffled else 0.0

    def to_json(self) -> dict[str, Any]:
        """Counts of tokens, and the share saved."""
        return {
            "real_tokens": self.real,
            "bucketed_tokens": self.bucketed,
            "shuffled_tokens": self.shuffled,
            "saved": round(self.saved, 4),
        }


def padding_of(lengths: Sequence[int], batch: int, seed: int) -> Padding:
    """What the first epoch's batches take, each padded to its longest row."""

    def tokens(bucketing: bool) -> int:
        order = list(Batches(lengths, batch, seed, bucketing=bucketing))
        total = 0
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            longest = max(lengths[row] for row in rows)
            total += len(rows) * -(-longest // MULTIPLE) * MULTIPLE
        return total

    return Padding(real=sum(lengths), bucketed=tokens(True), shuffled=tokens(False))
