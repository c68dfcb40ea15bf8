"""Fixtures of the compiler's tests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import settings

from .test_families import COMBINATIONS, TABLE, TARGETS, RecordRow

_HEAD = """# Model families and targets

Tiny models of each family with random weights, compiled for every target; "right on" names
the device where the compiled outputs agreed with PyTorch, padded inputs included. No device
for Adreno and Mali is emulated here, so for them the table says what compiles. The tests in
`tests/compiler/test_families.py` make this table and check it
(`pytest tests/compiler/test_families.py --write-tables`).

"""


@pytest.fixture
def every_target(request: pytest.FixtureRequest) -> bool:
    """Whether tests of families spare no target: at night, and where their table is made."""
    return bool(request.config.getoption("--write-tables")) or settings().max_examples >= 1000


@pytest.fixture
def record_table_row(request: pytest.FixtureRequest) -> RecordRow:
    """Assert that the documentation has these cells, or put them there with ``--write-tables``."""

    def record(family: str, head: str, cells: Mapping[str, str]) -> None:
        rows = _rows()
        if request.config.getoption("--write-tables"):
            rows[family, head] = dict(cells)
            _write(rows)
        else:
            assert cells.items() <= rows[family, head].items()

    return record


def _rows() -> dict[tuple[str, str], dict[str, str]]:
    """Of the documentation's table: by family and head, what stands below each target."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else ""
    split = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {
        (family, head): dict(zip(TARGETS, cells, strict=True))
        for family, head, *cells in (line for line in split if len(line) == 2 + len(TARGETS))
        if (family, head) in COMBINATIONS
    }


def _write(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
    columns = ("family", "head", *TARGETS)
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for one in COMBINATIONS:
        if one in rows:
            cells = (rows[one][target] for target in TARGETS)
            lines.append(f"| {' | '.join((*one, *cells))} |")
    TABLE.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
