"""Compiling with what was measured of products: who measures, who uses it, what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canao import targets
from canao.compiler.api import CompileReport, compile_model
from canao.compiler.kernels.choosing import measure, tuning
from canao.compiler.kernels.choosing.candidates import stored_engines
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.labels import LINALG
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.table import SCHEMA, Table, read_table, write_table
from canao.compiler.kernels.engines.registry import ENGINES
from canao.compiler.kernels.product import ProductShape
from canao.compiler.request import LoweringRequest, LoweringResult

from . import families
from .support import imported, lower_and_run, relative_error

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


def lowered(
    folder: Path, weight: torch.Tensor, choices: dict[str, str], precision: str = "f32"
) -> LoweringResult:
    """A layer with this weight."""
    layer = torch.nn.Linear(*reversed(weight.shape))
    with torch.no_grad():
        layer.weight *= weight
    x = torch.randn(1, 40, weight.shape[1])
    model, entry, inputs = imported(torch.nn.Sequential(layer).eval(), [x])
    request = {"precision": precision, "choices": choices}
    arrays, result = lower_and_run(model, inputs, folder, **request)
    assert relative_error(arrays, entry(*inputs)) < (1e-5 if precision == "f32" else 5e-2)
    return result


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_zeros_are_left_out_as_was_measured(precision: str, tmp_path: Path) -> None:
    engines = [
        kind
        for kind in ENGINES
        if kind.precision == precision
        and set(kind.features) <= set(targets.get("host").features)
        and not kind.name.startswith("amx")
    ]
    if not engines:
        pytest.skip(f"no vectors do {precision} here")
    tiles = next(tiles for tiles in engines[0].blocks if tiles * engines[0].lanes % 16 == 0)
    sparse = engines[0](1, tiles)
    alive = np.arange(4)[:, None] == np.arange(48) % 4
    weight = torch.from_numpy(alive.repeat(48, axis=0).repeat(4, axis=1))
    by_rule = lowered(tmp_path, weight, {}, precision)
    (zeros,) = {problem for problem in by_rule.unmeasured if problem.zeros}
    assert (zeros.panel, zeros.shape) == (48, ProductShape(40, 192, 192))
    key = f"{precision} 192x192 25%of48"
    label = f"{precision} 40x192x192 25%of48"

    def notes(packing: str) -> list[str]:
        found = lowered(tmp_path, weight, {key: packing, label: packing}, precision)
        assert not [problem for problem in found.unmeasured if problem.zeros]
        return [note for note in found.notes if "kept and multiplied" in note]

    assert notes("dense") == []
    (note,) = notes(f"sparse_{sparse.packing}")
    assert f"({sparse.name})" in note
    # Another way of leaving out that this core cannot do, or nobody can, is the rule's matter.
    assert bool(notes("sparse_neon_f32_1x24")) == any("kept" in n for n in by_rule.notes)


def test_inputs_are_picked_as_was_measured(tmp_path: Path) -> None:
    weight = torch.ones(64, 96)
    weight[:, ::2] = 0
    picked = "are picked"
    key = "f32 96x64 50%ofinputs"
    for packing in ("gathered", "dense"):
        found = lowered(tmp_path, weight, {key: packing})
        assert any(picked in note for note in found.notes) == (packing == "gathered")


def test_weights_alone_are_multiplied_as_was_measured(tmp_path: Path) -> None:
    features = targets.get("host").features
    *_, last = stored_engines(features, 40)
    choices = {"int8-weights 192x96": "stored", "int8-weights 40x192x96": last.label}
    found = lowered(tmp_path, torch.ones(96, 192), choices, "int8-weights")
    assert found.kernels == {f"product {last.name}": 1}
    assert found.unmeasured == ()
    (asked,) = lowered(tmp_path, torch.ones(96, 192), {}, "int8-weights").unmeasured
    assert asked == Problem("int8-weights", 40, 192, 96)


def test_a_request_keeps_its_choices() -> None:
    choices = {"f32 32x32": LINALG}
    request = LoweringRequest(text="", target=targets.get("host"), choices=choices)
    assert LoweringRequest.from_json(request.to_json()) == request
