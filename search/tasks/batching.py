"""Batches: sequences of like length together, padded to the longest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .base import Feature

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INPUTS", "LABELS", "collate", "length_batches"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LABELS = ("labels", "start_positions", "end_positions")
_NO_LABEL = -100  # what transformers' losses leave out


def length_batches(
    lengths: Sequence[int], size: int, *, borders: Sequence[int] = ()
) -> Iterator[list[int]]:
    """Indices in batches of at most ``size``, the longest first, like lengths together.

    ``borders`` are lengths, ascending, to one of which a batch is padded in the end: no batch
    reaches over one.
    """
    from bisect import bisect_left

    # The longest first: what does not fit in memory fails at once.
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        full = len(batch) == size
        if batch and (
            full or bisect_left(borders, lengths[index]) != bisect_left(borders, lengths[batch[0]])
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def collate(
    features: Sequence[Feature],
    *,
    inputs: Sequence[str] = INPUTS,
    pad_id: int = 0,
    labels: bool = True,
) -> dict[str, NDArray[Any]]:
    """Arrays [features, longest] of ``inputs``, and of the labels that features have.

    Token ids are padded with ``pad_id``, other inputs with 0, labels of tokens with -100, which
    losses leave out. Integers are int64, scores float32.
    """
    import numpy as np

    longest = max(len(feature["input_ids"]) for feature in features)
    batch: dict[str, NDArray[Any]] = {}
    for name in inputs:
        fill = pad_id if name == "input_ids" else 0
        batch[name] = _padded([feature[name] for feature in features], longest, fill)
    for name in LABELS if labels else ():
        values = [feature[name] for feature in features if name in feature]
        if not values:
            continue
        if isinstance(values[0], list):
            batch[name] = _padded(values, longest, _NO_LABEL)
        else:
            batch[name] = np.array(
                values, np.float32 if isinstance(values[0], float) else np.int64
            )
    return batch


def _padded(values: Sequence[Sequence[int]], length: int, fill: int) -> NDArray[Any]:
    import numpy as np

    array = np.full((len(values), length), fill, np.int64)
    for row, one in zip(array, values, strict=True):
        row[: len(one)] = one
    return array
