"""What decides an entry of the cache, and that it stays there as long as somebody needs it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

import canao
from canao import pruning, targets
from canao.compiler import cache
from canao.compiler.request import LoweringRequest, LoweringResult
from canao.pruning import prune_cache

RESULT = LoweringResult(calls=(), patterns={}, parameters=(), derivations=(), seconds=1.0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's root, where nothing is too young to be pruned."""
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(pruning, "_YOUNG_S", -1.0)
    return tmp_path / "cache"


def test_every_source_of_the_compiler_is_in_the_key() -> None:
    files = {Path(file) for file, _, _ in cache._own_files()}
    for part in ("lowering.py", "patterns/registry.py", "kernels/product.py"):
        assert Path(cache.__file__).parent / part in files


def test_a_module_stays_to_the_end_of_the_block(tmp_path: Path) -> None:
    module = tmp_path / "module.vmfb"
    module.write_bytes(b"program")
    request = LoweringRequest(text="module {}", target=targets.get("host"))
    with cache.keeps():
        path, _ = cache.store(request, module, RESULT)
        prune_cache(0)
        assert path.read_bytes() == b"program"
    with cache.keeps():
        assert cache.fetch(request) == (path, RESULT)
        prune_cache(0)
        assert path.read_bytes() == b"program"
    prune_cache(0)
    assert not path.exists()
    assert cache.fetch(request) is None


def test_a_bundle_in_the_cache_stays_as_long_as_it_is_open(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANAO_CACHE_LIMIT", "0")
    bundle = canao.compile(torch.nn.Linear(2, 2), example_inputs=[torch.ones(1, 2)])
    assert bundle.path.is_relative_to(place)
    assert not list((place / "modules").iterdir())
    prune_cache(0)
    bundle.check()
    path = bundle.path
    del bundle
    gc.collect()
    prune_cache(0)
    assert not list(path.parent.iterdir())


def test_a_wrong_limit_is_told_before_anything_is_done(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANAO_CACHE_LIMIT", "plenty")
    with pytest.raises(canao.InputError, match="CANAO_CACHE_LIMIT"):
        canao.compile(torch.nn.Linear(2, 2), example_inputs=[torch.ones(1, 2)])
    assert not place.exists()
