"""Hypothesis profiles, and what several test modules share.

Profiles: quick, ci, nightly; CANAO_HYPOTHESIS_PROFILE chooses one. Without it, ci is taken
where CI is set, else quick.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile(
    "nightly", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(
    os.environ.get("CANAO_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick")
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-tables",
        action="store_true",
        help="Remake the tables in docs/ from what is found.",
    )


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a question-answering head, saved as transformers saves it."""
    from .compiler import families

    path = tmp_path_factory.mktemp("model") / "tiny-bert"
    families.build("BERT", "question-answering").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def sample_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT encoder (hidden width 32) compiled for this machine at 8 and 16 tokens."""
    from canao.compiler.api import compile_model

    from .compiler import families

    path = tmp_path_factory.mktemp("bundle") / "tiny"
    compile_model(families.build("BERT"), seq_len=[8, 16], output=path)
    return path
