"""One class for each word of a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data import Row
from ..metrics_tags import are_span_tags, spans
from .base import Feature, Task, per_position
from .encoding import TextEncoder
from .sequences import sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TokenClassification"]

_IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """Predictions are lists of classes, one a word, None for words that were cut off.

    A word's class is read at, and taught on, its first token. Words that were cut off do not
    count. Where the classes' names mark spans (B-x, I-x, O), ``f1`` is that of whole spans;
    elsewhere it is the mean F1 of classes, ``macro_f1``.
    """

    @property
    def head(self) -> str:
        """One output a class, at each position."""
        return "token-classification"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """F1 of spans first, if there are spans."""
        if are_span_tags(self.label_names):
            return ("f1", "precision", "recall", "accuracy")
        return ("accuracy", "macro_f1")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """One sequence a row; ``firsts`` has the position of each word's first token."""
        encoded = TextEncoder(tokenizer).words([row["tokens"] for row in rows], seq_len)
        found = []
        for index, (row, (encoding, cut)) in enumerate(zip(rows, encoded, strict=True)):
            firsts: dict[int, int] = {}
            for position, word in enumerate(encoding.word_ids):
                if word is not None:
                    firsts.setdefault(word, position)
            labels = [_IGNORED] * len(encoding.ids)
            for word, position in firsts.items():
                labels[position] = row["tags"][word]
            given = {"row": index, "truncated": cut, "firsts": firsts, "labels": labels}
            found.append({**sequence(encoding, row), **given})
        return found

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """The class with the largest logit at each position."""
        return [logits.argmax(axis=-1) for logits in per_position(outputs, "logits", features)]

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[list[int | None]]:
        """The class at each word's first token."""
        return [
            [
                int(classes[feature["firsts"][word]]) if word in feature["firsts"] else None
                for word in range(len(rows[feature["row"]]["tokens"]))
            ]
            for classes, feature in zip(outputs, features, strict=True)
        ]

    def scores(
        self, predictions: Sequence[Sequence[int | None]], rows: Sequence[Row]
    ) -> NDArray[Any]:
        """Columns: words right, words; spans right, predicted, there; and these for each class."""
        import numpy as np

        named = are_span_tags(self.label_names)
        table = np.zeros((len(rows), 5 + 3 * self.num_labels))
        for line, predicted, row in zip(table, predictions, rows, strict=True):
            pairs = [(p, t) for p, t in zip(predicted, row["tags"], strict=True) if p is not None]
            line[:2] = sum(p == t for p, t in pairs), len(pairs)
            if named:
                found, right = (
                    spans([self.label_names[pair[side]] for pair in pairs]) for side in (0, 1)
                )
                line[2:5] = len(found & right), len(found), len(right)
            for p, t in pairs:
                for column, counts in enumerate((p == t, True, True)):
                    line[5 + 3 * (t if column == 2 else p) + column] += counts
        return table

    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """Over all words, and over all spans or classes."""
        import numpy as np

        total = scores.sum(axis=0)
        accuracy = _percent(total[0], total[1])
        if are_span_tags(self.label_names):
            hits, found, right = total[2:5]
            values = (2 * hits, found + right), (hits, found), (hits, right)
            return dict(
                zip(
                    self.metric_names,
                    [*(_percent(*pair) for pair in values), accuracy],
                    strict=True,
                )
            )
        classes = total[5:].reshape(-1, 3)
        seen = classes[classes[:, 1:].any(axis=1)]
        each = [_percent(2 * hits, found + right) for hits, found, right in seen]
        return {"accuracy": accuracy, "macro_f1": float(np.mean(each)) if each else 0.0}


def _percent(part: float, whole: float) -> float:
    return 100 * float(part / whole) if whole else 0.0
