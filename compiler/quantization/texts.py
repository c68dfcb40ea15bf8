"""Texts to calibrate with: the caller's, or sentences of our own."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["BUILT_IN", "Calibration", "Text", "read_texts"]

Text = tuple[str, str | None]
"""A text, and the second one of a pair where there is one."""

Calibration = str | os.PathLike[str] | Sequence[str]
"""What a caller may pass: a file, or texts."""

BUILT_IN: tuple[Text, ...] = tuple(
    (text, None)
    for text in (
        "The quick brown fox jumps over the lazy dog.",
        "Please send me the report before noon on Friday, and call me if anything is unclear.",
        "How many people lived in the city in 1850?",
        "Scientists have found that bees can learn to recognise human faces.",
        "The train was late again; we waited on the platform for nearly an hour in the rain.",
        "To install the program, unpack the archive and run the script called setup.",
        "Prices rose by 2.4% in March, the third increase in a row.",
        "He laughed, shook his head and said nothing.",
        "def add(a, b): return a + b",
        "What is the capital of France?",
        "A cat.",
        "Water boils at one hundred degrees Celsius at sea level, but at lower temperatures in "
        "the mountains.",
        "The court ruled that the contract was void because neither party had signed it.",
        "Mix the flour with two eggs and a pinch of salt, then let the dough rest.",
        "She scored twice in the second half, and the home team won 3-1.",
        "Is there a cheaper way to get to the airport?",
        "Founded in 1632, the university has about 30,000 students and six faculties.",
        "I loved the first season, but the second one was slow, silly and far too long.",
        "A man in a red jacket is riding a bicycle along a quiet street.",
        "Dr. Okafor, who led the trial in Lagos, said that the vaccine was safe and cheap.",
        "WARNING: do not open the cover while the machine is running!",
        "Yes.",
        "The river bends sharply to the east below the old stone bridge, widens into a marsh, "
        "and meets the sea some forty miles further on, near a village of fishermen.",
        "My order #48213 arrived broken; I'd like a refund, or a new one, by next week.",
    )
)
"""Generic English of several kinds: news, questions, instructions, reviews, a little code."""


def read_texts(calibration: Calibration) -> tuple[Text, ...]:
    """The texts that were passed, or those of the file that was named.

    A file has one text a line, or, where it is called ``.jsonl``, one object a line with
    ``text`` and perhaps ``text_pair``; both may be compressed (``.gz``). Raises `InputError`
    where there is nothing to read, or where a line is not what it should be.
    """
    if isinstance(calibration, (str, os.PathLike)):
        return _from_file(Path(calibration))
    listed = list(calibration)
    for text in listed:
        if not isinstance(text, str):
            raise InputError(f"A calibration text is a string, not a {type(text).__name__}.")
    texts = tuple((text, None) for text in listed if text.strip())
    if not texts:
        raise InputError("The calibration has no text: pass some sentences, or leave it out.")
    return texts


def _from_file(path: Path) -> tuple[Text, ...]:
    if path.is_dir():
        raise InputError(f"{path} is a directory: name a calibration file, one text a line.")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        # Only LF ends a line: JSON holds other separators of Unicode, which splitlines() takes.
        lines = [line.rstrip("\r") for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"The calibration file {path} is not text in UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"The calibration file {path} cannot be read: {error}.") from error
    rows = path.name.removesuffix(".gz").endswith(".jsonl")
    texts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            texts.append(_from_json(line, where) if rows else (line, None))
    if not texts:
        raise InputError(f"The calibration file {path} is empty: give it one text a line.")
    return tuple(texts)


def _from_json(line: str, where: str) -> Text:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    text = row.get("text") if isinstance(row, dict) else None
    pair = row.get("text_pair") if isinstance(row, dict) else None
    if not isinstance(text, str) or not isinstance(pair, (str, type(None))):
        raise InputError(f"{where} has no string called 'text' (and at most a 'text_pair').")
    return text, pair
