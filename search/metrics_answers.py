"""Exact match and F1 of answers, as the official evaluation of SQuAD 1.1 defines them.

Rajpurkar et al. 2016: answers are compared in lower case, without punctuation and the articles
a, an and the, white space made one blank; the best of a question's answers counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["answer_f1", "exact_match", "normalise"]

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(answer: str) -> str:
    """An answer as it is compared."""
    bare = "".join(c for c in answer.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """100 where the prediction equals one of the answers, else 0."""
    return 100.0 * any(normalise(predicted) == normalise(answer) for answer in answers)


def answer_f1(predicted: str, answers: Sequence[str]) -> float:
    """The best F1 of the prediction's words with an answer's, in percent."""
    return 100 * max(_overlap(normalise(predicted).split(), normalise(a).split()) for a in answers)


def _overlap(one: list[str], other: list[str]) -> float:
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other)) if shared else 0.0
