"""The benchmarks' knowledge of ARM's instructions, for tests."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["arm_counting", "counter"]

_PATH = Path(__file__).resolve().parents[3] / "benchmarks" / "arm_count" / "counting.py"


def arm_counting() -> ModuleType:
    """The benchmarks' module; to tell instructions it needs nothing else."""
    spec = importlib.util.spec_from_file_location("counting", _PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counter() -> ModuleType:
    """The same to count with; what that needs must be there where CI is set."""
    module = arm_counting()
    if absent := module.missing():
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    return module
