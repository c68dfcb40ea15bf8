"""A compiler that fails, loops or eats memory costs its own process and says why."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from canao import targets
from canao.compiler import iree_session
from canao.compiler.isolation import Children, lower_isolated
from canao.compiler.lowering import lower
from canao.compiler.patterns.base import Pattern
from canao.compiler.request import LoweringRequest, LoweringResult
from canao.errors import CompileError, InputError, UnsupportedError

from .support import imported, request_for

IDENTITY = (
    "module { func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {\n"
    "  BODY\n  return %x : !torch.vtensor<[2],f32> } }"
)
ACME = """
import os, time
from canao.compiler.patterns.base import Pattern
from canao.compiler.patterns.registry import register
class Acme(Pattern):
    name, stage, required = "acme.pattern", "torch", True
    def run(self, module, context):
        BODY
        return 0
register(Acme())
"""
SLEEP = """
        with open(os.environ["ACME_PID"] + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(os.environ["ACME_PID"] + ".new", os.environ["ACME_PID"])
        time.sleep(600)
"""


def identity(body: str = "", **options: Any) -> LoweringRequest:
    text = IDENTITY.replace("BODY", body)
    return LoweringRequest(text=text, target=targets.get("host"), **options)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, where a test puts a module ``acme``."""
    folder = tmp_path / "acme"
    folder.mkdir()
    monkeypatch.setenv("ACME_PID", str(tmp_path / "pid"))
    monkeypatch.syspath_prepend(str(folder))
    return folder / "acme.py"


def pid_in(path: Path) -> int:
    wait_until(path.exists)
    return int(path.read_text())


def wait_for_end(pid: int) -> None:
    """Return once the process is gone, or is a zombie that nobody collects."""

    def ended() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        return state in "ZX"

    wait_until(ended)


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail where it never comes true; the bound is far beyond what any machine needs."""
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("what was waited for never came")


@pytest.fixture(scope="module")
def request_() -> LoweringRequest:
    model, _, _ = imported(torch.nn.Linear(8, 8).eval(), [torch.randn(4, 8)])
    return request_for(model)


def test_isolated_gives_what_in_process_gives(request_: LoweringRequest, tmp_path: Path) -> None:
    inside = lower(request_, tmp_path / "a.vmfb")
    outside, peak = lower_isolated(request_, tmp_path / "b.vmfb")
    assert (tmp_path / "a.vmfb").read_bytes() == (tmp_path / "b.vmfb").read_bytes()
    assert dataclasses.replace(inside, seconds=0) == dataclasses.replace(outside, seconds=0)
    assert peak > 10_000_000


def test_request_and_result_round_trip(request_: LoweringRequest, tmp_path: Path) -> None:
    assert LoweringRequest.from_json(request_.to_json()) == request_
    result = lower(request_, tmp_path / "a.vmfb")
    assert LoweringResult.from_json(result.to_json()) == result
    assert [layer for _, layer in result.calls] == ["model"] * len(result.calls)


def test_a_time_out_kills_and_says_so(request_: LoweringRequest, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"more than 0\.01 s"):
        lower_isolated(request_, tmp_path / "a.vmfb", timeout=0.01)
    assert not (tmp_path / "a.vmfb").exists()


@pytest.mark.parametrize("mebibytes", [40, 300])
def test_a_memory_limit_is_told_as_such(
    request_: LoweringRequest, tmp_path: Path, mebibytes: int
) -> None:
    with pytest.raises(CompileError, match=f"more than the memory limit of {mebibytes} MiB: "):
        lower_isolated(request_, tmp_path / "a.vmfb", memory_limit=mebibytes * 2**20)
    assert not (tmp_path / "a.vmfb").exists()


def test_a_memory_error_in_a_pattern_is_told_as_such(acme: Path, tmp_path: Path) -> None:
    acme.write_text(ACME.replace("BODY", "raise MemoryError"))
    with pytest.raises(CompileError, match=r"more than the memory limit of 8\.0 GiB"):
        lower_isolated(
            identity(pattern_modules=("acme",)), tmp_path / "a.vmfb", memory_limit=8 * 2**30
        )


def test_a_crash_that_has_another_cause_is_not_blamed_on_memory(
    acme: Path, tmp_path: Path
) -> None:
    acme.write_text(ACME.replace("BODY", "os.kill(os.getpid(), 11)"))
    with pytest.raises(CompileError) as raised:
        lower_isolated(
            identity(pattern_modules=("acme",)), tmp_path / "a.vmfb", memory_limit=8 * 2**30
        )
    assert "died (SIGSEGV, under a memory limit of 8.0 GiB)" in str(raised.value)


def test_what_the_compiler_says_before_it_aborts_is_told(acme: Path, tmp_path: Path) -> None:
    acme.write_text(
        "import os\n"
        "from iree.compiler.api import ctypes_dl\n"
        "def execute(self):\n"
        "    os.write(2, b'LLVM ERROR: the flux is inverted\\n')\n"
        "    os.abort()\n"
        "ctypes_dl.Invocation.execute = execute\n"
    )
    with pytest.raises(CompileError, match=r"SIGABRT.*LLVM ERROR: the flux is inverted"):
        lower_isolated(identity(pattern_modules=("acme",)), tmp_path / "a.vmfb")


def test_two_threads_leave_standard_error_where_it_was() -> None:
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with iree_session._captured_stderr():
            first_is_in.set()
            second_is_in.wait(timeout=0.5)
        first_is_out.set()

    def second() -> None:
        first_is_in.wait()
        with iree_session._captured_stderr():
            second_is_in.set()
            first_is_out.wait()

    kept = os.dup(2)
    before = os.fstat(2).st_ino
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result()
    after = os.fstat(2).st_ino
    os.dup2(kept, 2)
    os.close(kept)
    assert before == after


def test_nothing_is_imported_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("resource", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    lower_isolated(identity(), tmp_path / "a.vmfb")
    monkeypatch.syspath_prepend(str(tmp_path))
    lower_isolated(identity(), tmp_path / "b.vmfb")
    assert not (tmp_path / "imported").exists()


def test_patterns_are_found_where_this_process_finds_them(acme: Path, tmp_path: Path) -> None:
    acme.write_text(ACME.replace("BODY", ""))
    result, _ = lower_isolated(identity(pattern_modules=("acme",)), tmp_path / "a.vmfb")
    assert "acme.pattern" in result.patterns


def test_a_pattern_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot import acme_nowhere"):
        lower_isolated(identity(pattern_modules=("acme_nowhere",)), tmp_path / "a.vmfb")


def test_patterns_that_the_child_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"acme\.ghost.*can be imported.*isolated=False"):
        lower_isolated(identity(patterns=("acme.ghost",)), tmp_path / "a.vmfb")


def test_stopping_kills_what_runs_and_what_would_start(acme: Path, tmp_path: Path) -> None:
    acme.write_text(ACME.replace("BODY", SLEEP))
    request, children = identity(pattern_modules=("acme",)), Children()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lower_isolated, request, tmp_path / "a.vmfb", children=children)
        pid = pid_in(tmp_path / "pid")
        children.stop()
        assert isinstance(running.exception(), CompileError)
    wait_for_end(pid)
    with pytest.raises(CompileError, match="stopped"):
        lower_isolated(request, tmp_path / "a.vmfb", children=children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_compiler_outlives_the_process_that_asked(
    acme: Path, tmp_path: Path, number: signal.Signals
) -> None:
    acme.write_text(ACME.replace("BODY", SLEEP))
    script = (
        f"import sys; sys.path.append({str(acme.parent)!r})\n"
        "import acme, torch\n"
        "from canao.compiler.api import compile_model\n"
        "compile_model(torch.nn.Linear(2, 2), example_inputs=[torch.ones(1, 2)],\n"
        f"              output={str(tmp_path / 'bundle')!r})\n"
    )
    environment = {**os.environ, "CANAO_CACHE_DIR": str(tmp_path / "cache")}
    asking = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE
    )
    pid = None
    try:
        pid = pid_in(tmp_path / "pid")
        asking.send_signal(number)
        wait_for_end(pid)
    except BaseException:
        asking.kill()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        asking.communicate()
    assert asking.returncode == -number
    assert not (tmp_path / "bundle").exists()


def test_an_op_without_a_form_is_named_with_its_layer(tmp_path: Path) -> None:
    text = (
        "module { func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {\n"
        '  %y = torch.operator "torch.acme.mystery"(%x) : (!torch.vtensor<[2],f32>) -> '
        '!torch.vtensor<[2],f32> loc("encoder.layer.3.mystery":1:0)\n'
        "  return %y : !torch.vtensor<[2],f32> } }"
    )
    request = LoweringRequest(text=text, target=targets.get("host"))
    with pytest.raises(UnsupportedError) as raised:
        lower_isolated(request, tmp_path / "a.vmfb")
    assert "encoder.layer.3.mystery" in str(raised.value)
    assert "torch.acme.mystery" in str(raised.value)


def test_invalid_ir_is_refused(tmp_path: Path) -> None:
    request = LoweringRequest(text="module {", target=targets.get("host"))
    with pytest.raises(CompileError, match="not valid IR") as raised:
        lower_isolated(request, tmp_path / "a.vmfb")
    assert "\n" not in str(raised.value)


class Counting(Pattern):
    """Counts how often it runs, and then does what a test wants."""

    name, stage = "acme.counting", "torch"

    def __init__(self, error: Exception | None = None) -> None:
        self.runs, self.error = 0, error

    def run(self, module: Any, context: Any) -> int:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return 0


def only(pattern: Pattern) -> dict[Any, list[Any]]:
    return {"torch": [pattern], "linalg": [], "dispatch": []}


def test_a_failing_pattern_is_not_tried_again(tmp_path: Path) -> None:
    pattern = Counting(ValueError("no\n" * 1000))
    with pytest.raises(CompileError, match=r"Pattern acme\.counting failed: ValueError") as raised:
        lower(identity(), tmp_path / "a.vmfb", patterns=only(pattern))
    assert pattern.runs == 1
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_failing_pipeline_is_tried_again_without_data_tiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = []
    real = iree_session.PhasedCompiler

    class Picky(real):  # type: ignore[misc, valid-type]
        def __init__(self, text: str, given: Any, **options: Any) -> None:
            super().__init__(text, given, **options)
            flags.append(tuple(given))

        def advance(self, phase: str) -> None:
            if len(flags) == 1:
                raise iree_session.PipelineError("IREE failed")
            super().advance(phase)

    monkeypatch.setattr(iree_session, "PhasedCompiler", Picky)
    result = lower(identity(), tmp_path / "a.vmfb")
    assert "--iree-opt-data-tiling=false" not in flags[0]
    assert "--iree-opt-data-tiling=false" in flags[1]
    assert any("without data tiling" in note for note in result.notes)


def test_an_operator_without_results_is_no_placeholder(tmp_path: Path) -> None:
    request = identity('torch.operator "torch.acme.effect"() : () -> ()')
    with pytest.raises(UnsupportedError, match=r"torch\.acme\.effect"):
        lower(request, tmp_path / "a.vmfb", patterns=only(Counting()))


def test_ir_that_cannot_be_checked_names_the_pattern(tmp_path: Path) -> None:
    request = identity(
        '%0 = torch.operator "torch.canao.parameter"() {"canao.name" = "w"} : () -> '
        "!torch.vtensor<[?],f32>",
        parameters=(("w", (2,), "float32"),),
    )
    with pytest.raises(CompileError, match=r"Pattern acme\.counting left IR"):
        lower(request, tmp_path / "a.vmfb", patterns=only(Counting()))
