"""A number for a text or a pair: by a head of its own, or as the likeness of two embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...runtime_harness.text import mean_pool
from ..data import Row
from ..metrics import pearson, spearman
from .base import Feature, Task, per_position, per_row
from .sequences import text_sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Regression", "Similarity"]


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Predictions are numbers, those of a sequence-classification head with one output."""

    @property
    def head(self) -> str:
        """One output a sequence."""
        return "sequence-classification"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Both correlations."""
        return ("spearman", "pearson")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """One sequence a row, ``labels`` its score; texts that are too long are cut."""
        found = text_sequences(rows, tokenizer, seq_len)
        return [{**one, "labels": row["score"]} for one, row in zip(found, rows, strict=True)]

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """The one logit."""
        return per_row(outputs, "logits")

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[float]:
        """The logit as it is."""
        return [float(logits[0]) for logits in outputs]

    def scores(self, predictions: Sequence[float], rows: Sequence[Row]) -> NDArray[Any]:
        """Columns: predicted and right score."""
        import numpy as np

        return np.array([predictions, [row["score"] for row in rows]], np.float64).T

    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """Spearman's and Pearson's correlation."""
        return {
            "spearman": spearman(scores[:, 0], scores[:, 1]),
            "pearson": pearson(scores[:, 0], scores[:, 1]),
        }


@dataclass(frozen=True, kw_only=True)
class Similarity(Regression):
    """A pair's score by an encoder without a head: the cosine of the two texts' embeddings.

    An embedding is the mean over the real positions (Reimers and Gurevych 2019). It needs no
    training on the scores; features carry no labels.
    """

    @property
    def head(self) -> str:
        """The encoder itself."""
        return "base"

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """Two sequences a row, one for each text."""
        for row in rows:
            if row.get("text_pair") is None:
                raise InputError(
                    f"{row.get('place', 'A row')} has no 'text_pair': a model without a head "
                    "compares the texts of a pair."
                )
        firsts, seconds = (
            text_sequences(rows, tokenizer, seq_len, (name,)) for name in ("text", "text_pair")
        )
        return [one for pair in zip(firsts, seconds, strict=True) for one in pair]

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """The embedding [width], of unit length."""
        import numpy as np

        return [
            mean_pool(hidden[None].astype(np.float64), np.ones((1, len(hidden))))[0]
            for hidden in per_position(outputs, "last_hidden_state", features)
        ]

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[float]:
        """The cosine of each pair."""
        pairs = zip(outputs[::2], outputs[1::2], strict=True)
        return [float(one @ other) for one, other in pairs]

    def check_model(self, num_labels: int, rows: Sequence[Row], model: str) -> None:
        """Any encoder will do."""
