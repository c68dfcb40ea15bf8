"""What a model is run on to learn of its activations: texts, and tokens drawn at random.

Random tokens stand for text unlike any that was given. Some samples decide how weights are
rounded; others, which had no part in that, tell how well it went.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import InputError
from ..models import SourceModel
from ..reference import draw_samples
from .sites import Inputs
from .texts import Text

__all__ = ["Samples", "Tokenized", "samples_for", "tokenized"]

_LONGEST = 96
_MOST_TEXTS = 32
_LONGEST_DRAWN = 384
# Longer samples have numbers enough to be like any other, and take long.
_LONGEST_VERIFIED = 512
# Letters that stand together; each Han character is a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+")


@dataclass(frozen=True)
class Samples:
    """``fit``: to decide by; ``texts`` and ``drawn``: to judge by, the latter first of all what a
    bundle is ``verified`` with."""

    fit: tuple[Inputs, ...]
    texts: tuple[Inputs, ...]
    drawn: tuple[Inputs, ...]
    verified: int = 0


@dataclass(frozen=True)
class Tokenized:
    """Texts as inputs, the share of their tokens that the vocabulary does not know, and how many
    tokens a word becomes (0: there are no words)."""

    inputs: tuple[Inputs, ...]
    unknown: float
    pieces: float


def samples_for(
    source: SourceModel, texts: Sequence[Inputs], seq_lens: Sequence[int], batch: int = 1
) -> Samples:
    """Every fourth text is for checking. A model without tokens has its example inputs.

    What a bundle for ``seq_lens`` (ascending) and ``batch`` is verified with is among what is
    drawn to judge by, of the shortest and the longest: outputs of few numbers, or of a head that
    was never trained, may bear less there than on any other sample.
    """
    longest = min(seq_lens[-1], _LONGEST_DRAWN, source.max_length or _LONGEST_DRAWN)
    short = max(1, longest // 4)
    if not source.tokens:
        given = draw_samples(source, 1, 1)
        return Samples(given, (), given, len(given))
    ends = {length for length in (seq_lens[0], seq_lens[-1]) if length <= _LONGEST_VERIFIED}
    verified = [one for length in sorted(ends) for one in draw_samples(source, length, batch)]
    fit = tuple(one for index, one in enumerate(texts) if index % 4 != 3)
    check = tuple(one for index, one in enumerate(texts) if index % 4 == 3)
    return Samples(
        fit=(*fit, _random(source, longest, 1), _random(source, short, 2)),
        texts=check,
        drawn=(*verified, _random(source, longest, 3), _random(source, short, 4)),
        verified=len(verified),
    )


def tokenized(source: SourceModel, texts: Sequence[Text]) -> Tokenized:
    """The model's inputs for some of ``texts``, evenly chosen, cut where they are long.

    Raises `InputError` where the model has no tokenizer.
    """
    from tokenizers import Tokenizer

    description = source.tokenizer_json()
    if description is None:
        raise InputError(
            f"{source.name} has no tokenizer (tokenizer.json), so it cannot be calibrated with "
            "text: put one beside the model, or leave the calibration out."
        )
    tokenizer = Tokenizer.from_str(description.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_longest(source))
    step = max(1, len(texts) // _MOST_TEXTS)
    chosen = texts[::step][:_MOST_TEXTS]
    encoded = [tokenizer.encode(one, other) for one, other in chosen]
    unknown = _unknown_id(tokenizer, json.loads(description))
    words = [
        token
        for one in encoded
        for token, special in zip(one.ids, one.special_tokens_mask, strict=True)
        if not special or token == unknown
    ]
    inputs = tuple(_inputs(source, one.ids, one.type_ids) for one in encoded if one.ids)
    if not inputs or max(max(one.ids, default=0) for one in encoded) >= (source.vocab_size or 0):
        raise InputError(f"The tokenizer of {source.name} does not go with its vocabulary.")
    strange = sum(word == unknown for word in words)
    firsts = [one for one, _ in chosen]
    return Tokenized(inputs, strange / max(1, len(words)), _pieces(firsts, encoded))


def _pieces(texts: Sequence[str], encoded: Sequence[Any]) -> float:
    """Tokens for each word of the texts, as far as they were not cut off."""
    words = pieces = 0
    for text, one in zip(texts, encoded, strict=True):
        ends = [
            span for span, part in zip(one.offsets, one.sequence_ids, strict=True) if part == 0
        ]
        for match in _WORD.finditer(text):
            count = sum(start < match.end() and end > match.start() for start, end in ends)
            words, pieces = words + bool(count), pieces + count
    return pieces / max(1, words)


def _longest(source: SourceModel) -> int:
    return min(_LONGEST, source.max_length or _LONGEST)


def _unknown_id(tokenizer: Any, description: Any) -> int | None:
    model = description.get("model", {})
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    return tokenizer.token_to_id(token) if isinstance(token, str) else None


def _inputs(source: SourceModel, ids: Sequence[int], types: Sequence[int]) -> Inputs:
    row = torch.tensor([list(ids)], dtype=torch.int32)
    limit = source.limits.get("token_type_ids", 1)
    made = {
        "input_ids": row,
        "attention_mask": torch.ones_like(row),
        "token_type_ids": torch.tensor([list(types)], dtype=torch.int32).clamp(max=limit - 1),
    }
    return tuple(made[name] for name in source.input_names)


def _random(source: SourceModel, length: int, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, source.vocab_size or 2, (length,), generator=generator).tolist()
    ids = [
        (source.pad_id + 1) % (source.vocab_size or 2) if i == source.pad_id else i for i in ids
    ]
    return _inputs(source, ids, [int(index >= length // 2) for index in range(length)])
