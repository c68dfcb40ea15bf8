"""Every family and head on every target, and the table of them in the documentation.

The table is what these tests find: each test asserts what it found of its own row. After a change
that is meant, remake it with ``pytest tests/compiler/test_families.py --write-tables``. Then, and
at night, every head is compiled for every target; else a family's body is, and its heads, which
add a layer or two to it, for the host and two others in turn.

Narrow precisions: each family once, with weights by which any layer's fault would show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.models import from_module
from canao.compiler.options import TOLERANCES
from canao.runtime_harness.numerics import compare

from . import families
from .support import token_inputs

TABLE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
COMBINATIONS = [(f, head) for f in families.CONFIGS for head in families.heads_of(f)]
RecordRow = Callable[[str, str, Mapping[str, str]], None]
# What must come of each target.
FOUND = {
    "host": "right on local",
    "arm64": "right on qemu",
    "arm64-i8mm": "right on qemu",
    "vulkan-llvmpipe": "right on vulkan",
    "vulkan-adreno": "compiles",
    "vulkan-mali": "compiles",
}
TARGETS = tuple(FOUND)


def tried(family: str, head: str, *, every: bool) -> tuple[str, ...]:
    """The targets that a head is compiled for."""
    if every or head == "base":
        return TARGETS
    _, *others = TARGETS
    turn = COMBINATIONS.index((family, head))
    return ("host", others[turn % len(others)], others[(turn + 2) % len(others)])


def test_every_target_has_its_turn() -> None:
    counts = Counter(
        target for one in COMBINATIONS for target in tried(*one, every=False) if one[1] != "base"
    )
    assert set(counts) == set(TARGETS)
    assert min(counts.values()) >= len(families.CONFIGS) // 2


@pytest.mark.parametrize(("family", "head"), COMBINATIONS)
def test_family_is_right_on_every_device_and_compiles_for_every_gpu(
    family: str, head: str, tmp_path: Path, record_table_row: RecordRow, every_target: bool
) -> None:
    chosen = tried(family, head, every=every_target)
    report = compile_model(
        families.build(family, head),
        target=chosen,
        seq_len=24,
        name=family,
        output=tmp_path / "bundle",
    )
    cells = {}
    for target in chosen:
        found = report.numerics[target]
        assert f"{target}/24" in report.dispatches
        cells[target] = "compiles" if found is None else f"right on {found['device']}"
        assert cells[target] == FOUND[target]
    record_table_row(family, head, cells)


def test_the_table_lists_what_is_tested_and_nothing_else() -> None:
    listed = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if "| " in line][2:]
    assert [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in listed] == (
        COMBINATIONS
    )


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("family", families.CONFIGS)
def test_family_is_right_in_narrow_precisions(family: str, precision: str, tmp_path: Path) -> None:
    here = precision in targets.get("host").precisions
    target, device = ("host", "local") if here else ("arm64-i8mm", "qemu")
    # Raises NumericsError where it differs from PyTorch by more than the precision may.
    report = compile_model(
        families.weighty(family),
        target=target,
        precision=precision,
        seq_len=12,
        output=tmp_path / "bundle",
        isolated=False,
    )
    found = report.numerics[target]
    assert found is not None
    assert found["ok"]
    assert found["device"] == device
    wider = []
    if precision == "int8":
        assert report.quantization is not None
        assert report.quantization["calibration"] == "random"
        assert report.bundle.manifest.model["quantization"] == report.quantization
        wider = report.quantization["wider"]
    products = {
        name: count
        for name, count in report.kernels[f"{target}/12"].items()
        if name.startswith("product")
    }
    narrow = sum(count for name, count in products.items() if name.endswith(precision))
    assert narrow >= sum(products.values()) - len(wider)
    assert narrow


@pytest.mark.parametrize("family", families.CONFIGS)
def test_no_linear_layer_could_be_missing_in_narrow_precisions(family: str) -> None:
    """What the tolerance is worth: without any one layer's weights outputs lie outside."""
    module = families.weighty(family)
    ids = token_inputs(from_module(module, None), 12, 12)[0].long()
    tolerance = TOLERANCES["int8"]

    def outputs() -> dict[str, np.ndarray[Any, Any]]:
        with torch.no_grad():
            named = module(input_ids=ids).items()
        return {n: value.numpy() for n, value in named if isinstance(value, torch.Tensor)}

    whole = outputs()
    assert compare(whole, whole, tolerance).ok
    for layer in families.linear_layers(module):
        with torch.no_grad():
            weight = layer.weight.clone()
            layer.weight.zero_()
            assert not compare(outputs(), whole, tolerance).ok
            layer.weight.copy_(weight)
