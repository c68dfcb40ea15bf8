"""The cache of compiled modules gives what compiling again would give, or nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from canao import targets
from canao.compiler import build, cache
from canao.compiler.api import compile_model
from canao.compiler.parameters import Derivation
from canao.compiler.patterns import registry
from canao.compiler.patterns.base import Pattern
from canao.compiler.request import LoweringRequest, LoweringResult
from canao.errors import CanaoError, CompileError, InputError, UnsupportedError

RESULT = LoweringResult(
    calls=(("a", "b"),), patterns={}, parameters=(), derivations=(), seconds=1.0
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's root, empty."""
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "PIPELINE", list(registry.registered()))
    return tmp_path / "cache"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.vmfb"
    path.write_bytes(b"program")
    return path


def request_(**options: Any) -> LoweringRequest:
    return LoweringRequest(text="module {}", target=targets.get("host"), **options)


class Acme(Pattern):
    name, stage = "acme.pattern", "torch"

    def __init__(self, width: int = 4) -> None:
        self.width = width

    def run(self, module: Any, context: Any) -> int:
        return 0


def test_what_is_stored_is_found(module: Path) -> None:
    assert cache.fetch(request_()) is None
    stored = cache.store(request_(), module, RESULT)
    assert stored == cache.fetch(request_())
    assert stored[0].read_bytes() == b"program"
    assert stored[1] == RESULT
    assert cache.fetch(request_(precision="f16")) is None


@pytest.mark.parametrize("damage", ["gone", "cut", "altered", "result gone", "result cut", "file"])
def test_a_damaged_entry_is_not_returned_and_is_replaced(damage: str, module: Path) -> None:
    path, _ = cache.store(request_(), module, RESULT)
    result = path.parent / "result.json"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(b"prog")
    elif damage == "altered":
        path.write_bytes(b"Program")
    elif damage == "result gone":
        result.unlink()
    elif damage == "result cut":
        result.write_text(result.read_text()[:20])
    else:
        path.unlink()
        result.unlink()
        path.parent.rmdir()
        path.parent.write_text("")
    assert cache.fetch(request_()) is None
    again, _ = cache.store(request_(), module, RESULT)
    assert again.read_bytes() == b"program"
    assert cache.fetch(request_()) == (again, RESULT)
    assert [entry.name for entry in again.parent.parent.iterdir()] == [again.parent.name]


def test_the_entry_of_a_faster_writer_is_kept(module: Path) -> None:
    first, _ = cache.store(request_(), module, RESULT)
    stamp = first.stat().st_ino
    later, result = cache.store(request_(), module, dataclasses.replace(RESULT, seconds=9.0))
    assert (later, result) == (first, RESULT)
    assert later.stat().st_ino == stamp


def test_a_cache_that_cannot_be_written_says_so(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Any, destination: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "rename", rename)
    with pytest.raises(CanaoError, match=r"No space left on device.*CANAO_CACHE_DIR"):
        cache.store(request_(), module, RESULT)


def test_a_cache_that_is_a_file_says_so(place: Path) -> None:
    place.write_text("")
    with pytest.raises(CanaoError, match="CANAO_CACHE_DIR"):
        cache.fetch(request_())


def test_the_order_and_the_attributes_of_patterns_are_in_the_key(module: Path) -> None:
    keys = []
    for added in ([], [Acme(4)], [Acme(5)], [Acme(4)]):
        registry.PIPELINE[:] = [*added, *(p for p in registry.PIPELINE if p.name != Acme.name)]
        keys.append(cache._key(request_()))
    registry.PIPELINE.append(registry.PIPELINE.pop(0))
    keys.append(cache._key(request_()))
    assert keys[1] == keys[3]
    assert len(set(keys)) == 4


def test_the_source_of_a_pattern_and_of_what_is_beside_it_are_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_cached"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("WIDTH = 4")
    (package / "pattern.py").write_text(
        "from canao.compiler.patterns.base import Pattern\n"
        "class Other(Pattern):\n"
        "    name, stage = 'acme.other', 'torch'\n"
        "    def run(self, module, context): return 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from acme_cached.pattern import Other  # type: ignore[import-not-found]

    registry.register(Other())
    keys = [cache._key(request_())]
    (package / "helper.py").write_text("WIDTH = 16")
    keys.append(cache._key(request_()))
    with (package / "pattern.py").open("a") as file:
        file.write("# another text\n")
    keys.append(cache._key(request_()))
    assert len(set(keys)) == 3
    del sys.modules["acme_cached.pattern"], sys.modules["acme_cached"]


def test_what_compiles_has_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    from canao.compiler.kernels.choosing import tuning

    host = targets.get("host")
    first = cache.compiler_digest(host)
    assert first == cache.compiler_digest(host)
    assert first != cache.compiler_digest(targets.get("arm64"))
    registry.PIPELINE.insert(0, Acme(4))
    patterned = cache.compiler_digest(host)
    monkeypatch.setattr(tuning, "choices_for", lambda target: ({"a product": "an engine"}, []))
    chosen = cache.compiler_digest(host)
    monkeypatch.setattr(cache, "_own_files", lambda: (("another.py", 1, 1),))
    monkeypatch.setattr(cache, "_sources", lambda files: str(files))
    assert len({first, patterned, chosen, cache.compiler_digest(host)}) == 4


def test_the_machine_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    request = LoweringRequest(
        text="", target=dataclasses.replace(targets.get("host"), triple="", features=())
    )
    here = cache._key(request)
    monkeypatch.setattr("canao.targets.target.machine_arch", lambda: "acme64")
    assert cache._key(request) != here


def test_a_pattern_of_the_program_that_is_run_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acme, "__module__", "__main__")
    registry.register(Acme())
    linear = torch.nn.Linear(2, 2)
    options: dict[str, Any] = {"example_inputs": [torch.ones(1, 2)], "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"acme\.pattern.*isolated=False"):
        compile_model(linear, **options)
    assert not list(place.glob("modules/*"))
    report = compile_model(linear, isolated=False, **options)
    assert report.patterns["acme.pattern"] == 0


def test_a_pattern_that_only_this_process_registers_is_refused(
    place: Path, tmp_path: Path
) -> None:
    registry.register(Acme())  # importable, if at all, as a module that registers nothing
    with pytest.raises(InputError, match=r"isolated=False"):
        compile_model(
            torch.nn.Linear(2, 2), example_inputs=[torch.ones(1, 2)], output=tmp_path / "out"
        )
    assert not list(place.glob("modules/*"))


def test_a_derived_weight_must_fit_a_buffer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lower(request: LoweringRequest, output: Path) -> LoweringResult:
        output.write_bytes(b"program")
        joined = Derivation("acme.joined", "concatenate", ("weight",) * 3, (("axis", 0),))
        return dataclasses.replace(RESULT, parameters=(joined.name,), derivations=(joined,))

    monkeypatch.setattr(build, "lower", lower)
    target = dataclasses.replace(targets.get("host"), max_storage_buffer_bytes=2048)
    with pytest.raises(UnsupportedError, match=r"acme\.joined"):  # 3 KiB of 1 KiB each
        compile_model(
            torch.nn.Linear(16, 16),
            target=target,
            example_inputs=[torch.ones(1, 16)],
            output=tmp_path / "out",
            isolated=False,
        )


def test_one_name_with_two_contents_is_refused() -> None:
    weights: dict[str, torch.Tensor] = {}
    nan = torch.tensor([1.0, float("nan")])
    build._add(weights, {"w": nan}, 8)
    build._add(weights, {"w": nan.clone(), "scalar": torch.tensor(1)}, 16)
    build._add(weights, {"scalar": torch.tensor(1)}, 32)
    for other in (torch.ones(2), torch.ones(3), torch.ones(2, dtype=torch.float16)):
        with pytest.raises(CompileError, match="'w' at length 32 differs"):
            build._add(weights, {"w": other}, 32)
    assert weights["w"] is not other


def test_the_envelope_tells_size_and_hash(module: Path) -> None:
    path, _ = cache.store(request_(), module, RESULT)
    envelope = json.loads((path.parent / "result.json").read_text())
    assert envelope["bytes"] == 7
    assert len(envelope["sha256"]) == 64
