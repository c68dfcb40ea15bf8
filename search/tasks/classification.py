"""One class for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data import Row
from ..metrics import accuracy, f1, macro_f1, matthews
from .base import Feature, Task, per_row
from .sequences import text_sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Classification"]


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Predictions are classes. ``f1`` is that of class 1 where there are two classes."""

    @property
    def head(self) -> str:
        """One output a class."""
        return "sequence-classification"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """F1 of the positive class, or the mean over classes where there are more than two."""
        return ("accuracy", "f1" if self.num_labels == 2 else "macro_f1", "matthews")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """One sequence a row, ``labels`` its class; texts that are too long are cut."""
        found = text_sequences(rows, tokenizer, seq_len)
        return [{**one, "labels": row["label"]} for one, row in zip(found, rows, strict=True)]

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """The logits [classes]."""
        return per_row(outputs, "logits")

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[int]:
        """The class with the largest logit, the first of equals."""
        return [int(logits.argmax()) for logits in outputs]

    def scores(self, predictions: Sequence[int], rows: Sequence[Row]) -> NDArray[Any]:
        """Columns: predicted class, right class."""
        import numpy as np

        labels = [row["label"] for row in rows]
        return np.array([predictions, labels], np.float64).T

    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """Accuracy, F1 and Matthews' correlation."""
        predicted, label = scores[:, 0], scores[:, 1]
        values = (
            accuracy(predicted, label),
            f1(predicted, label)
            if self.num_labels == 2
            else macro_f1(predicted, label, self.num_labels),
            matthews(predicted, label),
        )
        return dict(zip(self.metric_names, values, strict=True))
