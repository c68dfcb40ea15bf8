"""Sequences of tokens as features, and texts or pairs as sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..data import Row
from .base import Feature
from .encoding import TextEncoder

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["sequence", "text_sequences"]


def sequence(encoding: Encoding, row: Row) -> Feature:
    """The inputs of a model; InputError, naming the row, where there is no token."""
    if not encoding.ids:
        raise InputError(f"{row.get('place', 'A row')} has no token that the tokenizer knows.")
    return {
        "input_ids": encoding.ids,
        "attention_mask": [1] * len(encoding.ids),
        "token_type_ids": encoding.type_ids,
    }


def text_sequences(
    rows: Sequence[Row], tokenizer: Any, seq_len: int, names: Iterable[str] = ("text", "text_pair")
) -> list[Feature]:
    """One sequence a row of its texts ``names``; what is too long is cut at its end."""
    texts: list[str | tuple[str, str]] = []
    for row in rows:
        given = [row[name] for name in names if row.get(name) is not None]
        texts.append((given[0], given[1]) if len(given) == 2 else given[0])
    encoded = TextEncoder(tokenizer).texts(texts, seq_len)
    return [
        {**sequence(encoding, row), "row": index, "truncated": cut}
        for index, (row, (encoding, cut)) in enumerate(zip(rows, encoded, strict=True))
    ]
