"""Compiling with what was measured of products: who measures, who uses it, what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from canao import targets
from canao.compiler.api import CompileReport, compile_model
from canao.compiler.kernels.choosing import measure, tuning
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.labels import LINALG
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.table import SCHEMA, Table, read_table, write_table
from canao.compiler.lowering import LoweringRequest

from . import families

# Drift cannot be asked of a machine that runs tests.
QUICK = measure.Effort(rounds=3, most_rounds=3, drift=1e9)
WIDTH = 32


@pytest.fixture(autouse=True)
def own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty table of the user's, and no shipped one."""
    path = tmp_path / "products.json"
    monkeypatch.setattr(tuning, "user_table", lambda: path)
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "none.json")
    monkeypatch.setattr(measure, "Effort", lambda: QUICK)
    return path


def compiled(path: Path, **options: object) -> CompileReport:
    return compile_model(families.build("BERT"), seq_len=8, output=path, **options)  # type: ignore[arg-type]


def test_tune_measures_what_is_missing_once(own_table: Path, tmp_path: Path) -> None:
    first = compiled(tmp_path / "a", tune=True)
    assert first.warnings == ()
    table, _ = read_table(own_table)
    measured = table.of(cpu_key())
    assert {problem.depth for problem in measured} >= {WIDTH}
    assert all(problem.precision == "f32" for problem in measured)
    before = own_table.read_bytes()
    again = compiled(tmp_path / "b", tune=True)
    assert own_table.read_bytes() == before
    assert again.peak_bytes == 0  # every module came from the cache
    assert again.kernels == first.kernels


def test_without_tune_nothing_is_measured(own_table: Path, tmp_path: Path) -> None:
    compiled(tmp_path / "a")
    assert not own_table.exists()


def test_linalg_serves_what_it_is_faster_at(own_table: Path, tmp_path: Path) -> None:
    rule = compiled(tmp_path / "a")
    problem = Problem("f32", 8, WIDTH, WIDTH)
    write_table(own_table, Table({cpu_key(): {problem: {LINALG: 1.0}}}))
    measured = compiled(tmp_path / "b")
    reason = "because that was measured to be faster"
    assert any(reason in line for line in measured.fallbacks)
    assert not any(reason in line for line in rule.fallbacks)


def test_a_table_of_another_version_is_a_warning(own_table: Path, tmp_path: Path) -> None:
    own_table.write_text(f'{{"schema": {SCHEMA + 1}, "cpus": {{}}}}')
    (warning,) = compiled(tmp_path / "a").warnings
    assert str(own_table) in warning


def test_a_request_keeps_its_choices() -> None:
    choices = {"f32 32x32": LINALG}
    request = LoweringRequest(text="", target=targets.get("host"), choices=choices)
    assert LoweringRequest.from_json(request.to_json()) == request
