"""The reference workload that ships: right numbers, and made again by its script."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from canao.runtime_harness.verify import verify
from canao.runtime_harness.workload import WORKLOAD, reference_bundle

from .tiny import needed

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "make_workload.py"


@pytest.mark.parametrize("name", ["local", "vulkan"])
def test_the_workload_computes_what_numpy_does(name: str) -> None:
    needed(name)
    found = verify(reference_bundle(), name, record=False)
    assert found["ok"]


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "again.canao")
    assert (tmp_path / "again.canao").read_bytes() == WORKLOAD.read_bytes()
