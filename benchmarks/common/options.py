"""Kinds of command-line options that the benchmarks share, for argparse's ``type``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from .paths import DOCS, RESULTS

__all__ = ["add_outputs", "directory_or_none", "one_of", "whole_numbers"]


def add_outputs(parser: argparse.ArgumentParser, results: str) -> None:
    """``--json``, by default the file ``results`` beside the others, and ``--docs``."""
    parser.add_argument("--json", type=Path, default=RESULTS / results, metavar="FILE")
    parser.add_argument(
        "--docs",
        type=directory_or_none,
        default=DOCS,
        metavar="DIRECTORY",
        help='for the page and its plot; "" writes none',
    )


def one_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Names with commas between them, each of which must be ``known``."""
    names = list(known)

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
        return chosen

    return parse


def whole_numbers(text: str) -> list[int]:
    """Whole numbers of at least 1 with commas between them."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a number below 1")
    return numbers


def directory_or_none(text: str) -> Path | None:
    """A directory; the empty text means none."""
    return Path(text) if text else None
