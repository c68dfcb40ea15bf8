"""Text to tokens for tasks, by the fast tokenizer of a model directory or of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["TextEncoder"]

_MASKS = ("[MASK]", "<mask>")


class TextEncoder:
    """A private copy of a tokenizer, cutting and cutting into windows as tasks want.

    ``tokenizer`` is one of the package ``tokenizers``, a fast one of transformers, the text of
    a ``tokenizer.json``, or a `TextEncoder`. The caller's object is left as it is.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        description: str
        if isinstance(tokenizer, TextEncoder):
            description = tokenizer._description
        elif isinstance(tokenizer, str):
            description = tokenizer
        else:
            inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
            if not isinstance(inner, Tokenizer):
                raise InputError(
                    f"{type(tokenizer).__name__} is no fast tokenizer: give the model one with a "
                    "tokenizer.json."
                )
            description = inner.to_str()
        self._description: str = description
        try:
            self._tokenizer = Tokenizer.from_str(description)
        except Exception as error:
            raise InputError(f"The tokenizer cannot be read: {error}.") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @property
    def mask_id(self) -> int | None:
        """The id of the token that stands for a hidden one; None where there is none."""
        found = (self._tokenizer.token_to_id(mask) for mask in _MASKS)
        return next((one for one in found if one is not None), None)

    def texts(
        self, texts: Sequence[str | tuple[str, str]], seq_len: int
    ) -> list[tuple[Encoding, bool]]:
        """Texts or pairs with special tokens, at most ``seq_len`` long, and whether each was cut.

        Of a pair the longer text is cut first.
        """
        self._check_room(seq_len, any(isinstance(text, tuple) for text in texts), 1)
        self._tokenizer.enable_truncation(seq_len, strategy="longest_first")
        return [(one, bool(one.overflowing)) for one in self._batch(texts)]

    def words(self, rows: Sequence[Sequence[str]], seq_len: int) -> list[tuple[Encoding, bool]]:
        """Lists of words with special tokens; ``word_ids`` tells each token's word."""
        self._check_room(seq_len, False, 1)
        tokenizer = self._with_space_before_words()
        tokenizer.enable_truncation(seq_len)
        encoded = tokenizer.encode_batch([list(row) for row in rows], is_pretokenized=True)
        return [(one, bool(one.overflowing)) for one in encoded]

    def plain(self, texts: Sequence[str]) -> list[Encoding]:
        """Texts whole, without special tokens."""
        self._tokenizer.no_truncation()
        found: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return found

    def special_tokens(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after a single text."""
        self._tokenizer.no_truncation()
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a").ids
        start = next(
            (i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), 0
        )
        return full[:start], full[start + len(bare) :]

    def windows(
        self, pairs: Sequence[tuple[str, str]], seq_len: int, *, overlap: int, question_tokens: int
    ) -> list[tuple[list[Encoding], bool]]:
        """For each (question, context) its windows, and whether the question was cut.

        A window has the question, of at most ``question_tokens`` tokens, and the next part of the
        context; windows share ``overlap`` tokens of it, or as many as there is room for.
        """
        self._check_room(seq_len, True, question_tokens + 1)
        room = seq_len - self._tokenizer.num_special_tokens_to_add(True) - question_tokens
        self._tokenizer.no_truncation()
        questions = self._tokenizer.encode_batch(
            [question for question, _ in pairs], add_special_tokens=False
        )
        cut = [len(one) > question_tokens for one in questions]
        fitting = [
            (self._cut(question, question_tokens) if too_long else question, context)
            for (question, context), too_long in zip(pairs, cut, strict=True)
        ]
        self._tokenizer.enable_truncation(
            seq_len, stride=min(overlap, room - 1), strategy="only_second"
        )
        return [
            ([one, *one.overflowing], too_long)
            for one, too_long in zip(self._batch(fitting), cut, strict=True)
        ]

    def _cut(self, text: str, longest: int) -> str:
        """The longest beginning of ``text``, at a token's end, with at most ``longest`` tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        for count in range(longest, 0, -1):
            shorter = text[: offsets[count - 1][1]]
            # What is left of a word may need more tokens than the word had up to there.
            if len(self._tokenizer.encode(shorter, add_special_tokens=False)) <= longest:
                return shorter
        return ""

    def _batch(self, texts: Sequence[str | tuple[str, str]]) -> list[Encoding]:
        found: list[Encoding] = self._tokenizer.encode_batch(list(texts))
        return found

    def _check_room(self, seq_len: int, pair: bool, least: int) -> None:
        special = self._tokenizer.num_special_tokens_to_add(pair)
        if seq_len < special + least:
            raise InputError(
                f"A sequence length of {seq_len} leaves too little room beside {special} special "
                f"tokens: take at least {special + least}."
            )

    def _with_space_before_words(self) -> Any:
        """A tokenizer for which a word in a list is what it is after a space.

        Byte-level tokenizers (GPT-2, RoBERTa) tell the first word of a text from the others.
        """
        from tokenizers import Tokenizer

        description = json.loads(self._description)
        before = description.get("pre_tokenizer") or {}
        if before.get("type") == "ByteLevel":
            before["add_prefix_space"] = True
            description["pre_tokenizer"] = before
        tokenizer = Tokenizer.from_str(json.dumps(description))
        tokenizer.no_padding()
        return tokenizer
