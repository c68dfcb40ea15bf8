"""The span of a text that answers a question, as for SQuAD 1.1.

A context that is too long for the model becomes overlapping windows. The answer is the span with
the largest sum of its start's and its end's logit over all windows, among the twenty best starts
and ends of each, with at most thirty tokens (Devlin et al. 2019, as in the published code).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..data import Row
from ..metrics_answers import answer_f1, exact_match
from .base import Feature, Task, per_position
from .encoding import TextEncoder
from .sequences import sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding

__all__ = ["QuestionAnswering"]

_BEST = 20
_LONGEST_ANSWER = 30
_LONGEST_QUESTION = 64
_Offsets = list[tuple[int, int] | None]


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """Predictions are strings, parts of the context; ``""`` where no span was possible.

    A feature is a window: ``offsets`` has the characters of the context that a token covers, or
    None for tokens of the question and special ones. ``start_positions`` and ``end_positions``
    are the tokens of the first answer, or 0 and 0 where the window does not hold all of it.
    """

    default_seq_len: ClassVar[int] = 192

    @property
    def head(self) -> str:
        """A start and an end logit for each position."""
        return "question-answering"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Those of SQuAD."""
        return ("f1", "exact_match")

    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """The windows of all rows, in order; a question of more than 64 tokens is cut."""
        found = TextEncoder(tokenizer).windows(
            [(row["question"], row["context"]) for row in rows],
            seq_len,
            overlap=max(seq_len // 3, min(_LONGEST_ANSWER, seq_len // 2)),
            question_tokens=min(_LONGEST_QUESTION, max(1, seq_len // 3)),
        )
        return [
            _window(encoding, index, row, cut)
            for index, (row, (encodings, cut)) in enumerate(zip(rows, found, strict=True))
            for encoding in encodings
        ]

    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """Start and end logits, each [positions]."""
        starts = per_position(outputs, "start_logits", features)
        ends = per_position(outputs, "end_logits", features)
        return list(zip(starts, ends, strict=True))

    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[str]:
        """The best span of each row, of equals the one in the first window."""
        best: list[tuple[float, str]] = [(float("-inf"), "")] * len(rows)
        for (start, end), feature in zip(outputs, features, strict=True):
            index = feature["row"]
            for score, first, last in _spans(start, end, feature["offsets"]):
                if score > best[index][0]:
                    best[index] = (score, rows[index]["context"][first:last])
        return [text for _, text in best]

    def scores(self, predictions: Sequence[str], rows: Sequence[Row]) -> NDArray[Any]:
        """Columns: F1 and exact match of each question, in percent."""
        import numpy as np

        return np.array(
            [
                (
                    answer_f1(found, row["answers"]["text"]),
                    exact_match(found, row["answers"]["text"]),
                )
                for found, row in zip(predictions, rows, strict=True)
            ],
            np.float64,
        )

    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """The means over questions."""
        return {
            name: float(value)
            for name, value in zip(self.metric_names, scores.mean(axis=0), strict=True)
        }

    def check_model(self, num_labels: int, rows: Sequence[Row], model: str) -> None:
        """The head alone decides."""


def _window(encoding: Encoding, index: int, row: Row, cut: bool) -> Feature:
    offsets: _Offsets = [
        offset if part == 1 else None
        for offset, part in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]
    text, begin = row["answers"]["text"][0], row["answers"]["answer_start"][0]
    start, end = _positions(offsets, begin, begin + len(text))
    return {
        **sequence(encoding, row),
        "row": index,
        "truncated": cut,
        "offsets": offsets,
        "start_positions": start,
        "end_positions": end,
    }


def _positions(offsets: _Offsets, begin: int, end: int) -> tuple[int, int]:
    """The first and the last token that the characters begin..end touch; 0, 0 if any are out."""
    touched = [i for i, o in enumerate(offsets) if o is not None and o[0] < end and o[1] > begin]
    inside = [o for o in offsets if o is not None]
    if not touched or inside[0][0] > begin or inside[-1][1] < end:
        return 0, 0
    return touched[0], touched[-1]


def _spans(
    start: NDArray[Any], end: NDArray[Any], offsets: _Offsets
) -> Iterable[tuple[float, int, int]]:
    """Score, first and last character of the spans that may be an answer."""
    for first in _largest(start):
        begin = offsets[first]
        for last in _largest(end):
            finish = offsets[last]
            if begin is None or finish is None or not first <= last < first + _LONGEST_ANSWER:
                continue
            yield float(start[first]) + float(end[last]), begin[0], finish[1]


def _largest(logits: NDArray[Any]) -> list[int]:
    """Positions of the largest logits, of equals the first."""
    return [int(i) for i in (-logits).argsort(kind="stable")[:_BEST]]
