"""Every family and head on every target, and the table of them in the documentation.

The table is what these tests find: each test asserts its own row. After a change that is
meant, remake it with ``pytest tests/compiler/test_families.py --write-tables``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from canao.compiler.api import compile_model

from . import families

TABLE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
TARGETS = ("host", "arm64", "arm64-i8mm", "vulkan-llvmpipe", "vulkan-adreno", "vulkan-mali")
COMBINATIONS = [(f, head) for f in families.CONFIGS for head in families.heads_of(f)]


def row(family: str, head: str, cells: list[str]) -> str:
    return f"| {family} | {head} | {' | '.join(cells)} |"


@pytest.mark.parametrize(("family", "head"), COMBINATIONS)
def test_family_is_right_on_every_device_and_compiles_for_every_gpu(
    family: str, head: str, tmp_path: Path, record_table_row: object
) -> None:
    report = compile_model(
        families.build(family, head),
        target=TARGETS,
        seq_len=24,
        name=family,
        output=tmp_path / "bundle",
    )
    cells = []
    for target in TARGETS:
        found = report.numerics[target]
        assert f"{target}/24" in report.dispatches
        cells.append("compiles" if found is None else f"right on {found['device']}")
    assert cells[:4] == ["right on local", *["right on qemu"] * 2, "right on vulkan"]
    assert cells[4:] == ["compiles", "compiles"]
    text = row(family, head, cells)
    record_table_row(text)  # type: ignore[operator]


def test_the_table_lists_what_is_tested_and_nothing_else() -> None:
    listed = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if "| " in line][2:]
    assert [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in listed] == (
        COMBINATIONS
    )
