"""Fixtures of the compiler's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .test_families import COMBINATIONS, TABLE, TARGETS

_HEAD = """# Model families and targets

Tiny models of each family with random weights, compiled for every target; "right on" names
the device where the compiled outputs agreed with PyTorch, padded inputs included. No device
for Adreno and Mali is emulated here, so for them the table says what compiles. The tests in
`tests/compiler/test_families.py` make this table and check it
(`pytest tests/compiler/test_families.py --write-tables`).

"""


@pytest.fixture
def record_table_row(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Assert that the documentation has this row, or put it there with ``--write-tables``."""

    def record(text: str) -> None:
        if request.config.getoption("--write-tables"):
            _write(text)
        else:
            assert text in TABLE.read_text(encoding="utf-8").splitlines()

    return record


def _write(text: str) -> None:
    key = tuple(text.split("|")[1:3])
    rows = {}
    if TABLE.is_file():
        for line in TABLE.read_text(encoding="utf-8").splitlines():
            if line.startswith("| "):
                rows[tuple(line.split("|")[1:3])] = line
    rows[key] = text
    columns = ("family", "head", *TARGETS)
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [
        rows[(f" {family} ", f" {head} ")]
        for family, head in COMBINATIONS
        if (f" {family} ", f" {head} ") in rows
    ]
    TABLE.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
