"""How well a model foretells plain text: the perplexity, lower is better.

Text is cut into windows of the sequence length. A causal model foretells each token but the
first from those before it in the window; windows share one token, so each token of the text is
foretold once. A masked model foretells hidden tokens from all others: a seventh of a window is
hidden at a time, evenly spread, and each token once, so that its pseudo-perplexity (Salazar et
al. 2020, who hide one token at a time) takes seven calls a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..data import Row
from .base import Feature, Task, per_position
from .encoding import TextEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CausalModelling", "MaskedModelling"]

_IGNORED = -100
_HIDDEN = 7  # one token in so many is hidden at a time: near the 15 % of training
_BLOCK = 100_000


@dataclass(frozen=True, kw_only=True)
class CausalModelling(Task):
    """Predictions are (negative log likelihood in nats, tokens, characters), one a sequence.

    The characters are those of the text that the tokens stand for.
    """

    largest_batch: ClassVar[int | None] = 4  # a row of logits is as wide as the vocabulary

    @property
    def head(self) -> str:
        """Logits of the next token."""
        return "causal-lm"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Bits per character compare models of different vocabularies; perplexities do not."""
        return ("perplexity", "bits_per_character")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """Windows of the joined texts, each beginning with the last token of the one before.

        ``labels`` are the tokens themselves, as transformers shifts them.
        """
        if seq_len < 2:
            raise InputError("A sequence length of 1 leaves nothing to foretell: take 2 or more.")
        ids, characters = _tokens(rows, TextEncoder(tokenizer))
        if len(ids) < 2:
            raise InputError("The text is shorter than two tokens: there is nothing to foretell.")
        found = []
        for begin in range(0, len(ids) - 1, seq_len - 1):
            window = ids[begin : begin + seq_len]
            count = sum(characters[begin + 1 : begin + len(window)])
            found.append(_feature(window, list(window), count))
        return found

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """What a prediction is."""
        logits = per_position(outputs, "logits", features)
        return [
            (_surprise(one[:-1], feature["labels"][1:]), len(one) - 1, feature["characters"])
            for one, feature in zip(logits, features, strict=True)
        ]

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[Any]:
        """As it is: windows, not rows, are what was foretold."""
        return list(outputs)

    def scores(self, predictions: Sequence[Any], rows: Sequence[Row]) -> NDArray[Any]:
        """The predictions as columns, one row a sequence."""
        import numpy as np

        return np.array(predictions, np.float64)

    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """The exponential of the mean over tokens, and bits over characters."""
        loss, tokens, characters = scores.sum(axis=0)
        mean = min(float(loss / tokens), 700.0)  # exp() beyond is infinite
        bits = float(loss / math.log(2) / characters) if characters else 0.0
        return dict(zip(self.metric_names, (math.exp(mean), bits), strict=True))

    def count(self, scores: NDArray[Any]) -> int:
        """The number of tokens that were foretold."""
        return int(scores[:, 1].sum())

    def check_model(self, num_labels: int, rows: Sequence[Row], model: str) -> None:
        """The head alone decides."""


@dataclass(frozen=True, kw_only=True)
class MaskedModelling(CausalModelling):
    """The same for a masked language model."""

    @property
    def head(self) -> str:
        """Logits of the token at each position."""
        return "masked-lm"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Named so that nobody takes it for a causal model's."""
        return ("pseudo_perplexity", "pseudo_bits_per_character")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """Seven sequences a window, special tokens around it; ``labels`` at hidden tokens."""
        encoder = TextEncoder(tokenizer)
        mask = encoder.mask_id
        if mask is None:
            raise InputError("The tokenizer has no mask token: take a masked language model's.")
        before, after = encoder.special_tokens()
        room = seq_len - len(before) - len(after)
        if room < 1:
            raise InputError(
                f"A sequence length of {seq_len} leaves no room beside special tokens."
            )
        ids, characters = _tokens(rows, encoder)
        if not ids:
            raise InputError("The text has no token: there is nothing to foretell.")
        found = []
        for begin in range(0, len(ids), room):
            window = ids[begin : begin + room]
            for turn in range(min(_HIDDEN, len(window))):
                hidden = range(turn, len(window), _HIDDEN)
                given, labels = list(window), [_IGNORED] * len(window)
                for index in hidden:
                    given[index], labels[index] = mask, window[index]
                count = sum(characters[begin + index] for index in hidden)
                around = [_IGNORED] * len(before), [_IGNORED] * len(after)
                found.append(
                    _feature([*before, *given, *after], [*around[0], *labels, *around[1]], count)
                )
        return found

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """What a prediction is."""
        found = []
        for logits, feature in zip(
            per_position(outputs, "logits", features), features, strict=True
        ):
            hidden = [i for i, label in enumerate(feature["labels"]) if label != _IGNORED]
            labels = [feature["labels"][i] for i in hidden]
            loss = _surprise(logits[hidden], labels)
            found.append((loss, len(hidden), feature["characters"]))
        return found


def _feature(ids: list[int], labels: list[int], characters: int) -> Feature:
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "token_type_ids": [0] * len(ids),
        "labels": labels,
        "row": 0,
        "truncated": False,
        "characters": characters,
    }


def _tokens(rows: Sequence[Row], encoder: TextEncoder) -> tuple[list[int], list[int]]:
    """The tokens of the rows joined by line ends, and how far each reaches in characters.

    A token counts the characters since the end of the one before, so white space is counted.
    """
    ids: list[int] = []
    characters: list[int] = []
    for encoding in encoder.plain(list(_blocks(rows))):
        reached = 0
        for number, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            ids.append(number)
            characters.append(max(0, end - reached))
            reached = max(reached, end)
    return ids, characters


def _blocks(rows: Sequence[Row]) -> Iterator[str]:
    """The rows' texts joined, in pieces that end with a line: what is tokenised at once."""
    lines: list[str] = []
    length = 0
    for row in rows:
        lines.append(row["text"] + "\n")
        length += len(lines[-1])
        if length >= _BLOCK:
            yield "".join(lines)
            lines, length = [], 0
    if lines:
        yield "".join(lines)


def _surprise(logits: NDArray[Any], labels: Sequence[int]) -> float:
    """The sum of -log p(label) in nats, p by softmax over the last axis."""
    import numpy as np

    logits = logits.astype(np.float32)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64))
    return float((total - shifted[np.arange(len(labels)), list(labels)]).sum())
