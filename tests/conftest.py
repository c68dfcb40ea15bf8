"""Hypothesis profiles, and what several test modules share.

Profiles: quick, ci, nightly; CANAO_HYPOTHESIS_PROFILE chooses one. Without it, ci is taken
where CI is set, else quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True)
settings.register_profile(
    "nightly", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(
    os.environ.get("CANAO_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick")
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Of torch, before it is loaded. Two workers with two threads each wait for one another at every
# product, ten times longer than the tiny models here take.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-tables",
        action="store_true",
        help="Remake the tables in docs/ from what is found.",
    )


@pytest.fixture(scope="session", autouse=True)
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own, so that no test finds what an earlier run compiled.

    Only the ARM tools, which are downloaded, are taken over.
    """
    from canao.runtime_harness import aarch64_runtime

    tools = aarch64_runtime.find()
    cache = tmp_path_factory.mktemp("cache")
    if tools is not None:
        home = tools.parent.parent
        (cache / home.name).symlink_to(home, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANAO_CACHE_DIR", str(cache))
        yield cache


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
