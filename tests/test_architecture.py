"""The house: no floor imports a higher one, and the device's floors load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "errors": 0,
    "leases": 0,
    "paths": 0,
    "pruning": 0,
    "targets": 1,
    "runtime_harness": 2,
    "compiler": 3,
    "search": 4,
    "console": 5,
    "demo": 5,
    "inspection": 5,
    "commands": 5,
    "cli": 5,
}
HEAVY = ("torch", "iree.compiler", "transformers", "torch_mlir")


def modules() -> list[Path]:
    files = [path for path in ROOT.glob("*.py") if path.stem != "__init__"]
    for folder in ("targets", "runtime_harness", "compiler", "search", "commands"):
        files.extend(sorted((ROOT / folder).rglob("*.py")))
    return files


def imported_floors(path: Path, source: str | None = None) -> set[str]:
    """Names of canao's floors that a file imports, relative imports resolved."""
    package = ("canao", *path.relative_to(ROOT).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(source or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else ()
            full = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                dotted = (*full, alias.name)
                if dotted[0] == "canao" and len(dotted) > 1:
                    found.add(dotted[1])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                dotted = tuple(alias.name.split("."))
                if dotted[0] == "canao" and len(dotted) > 1:
                    found.add(dotted[1])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_floor_imports_a_higher_one(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in FLOORS, f"{own} has no floor: add it to the table"
    for other in imported_floors(path):
        assert other in FLOORS, f"{path} imports canao.{other}, which is no floor"
        assert FLOORS[other] <= FLOORS[own], f"{own} (floor {FLOORS[own]}) imports {other}"


def test_the_check_sees_every_kind_of_import() -> None:
    source = """
from ..compiler.api import compile
from .. import search
import canao.cli
def later():
    from ..demo import run_demo
"""
    seen = imported_floors(ROOT / "targets" / "target.py", source)
    assert seen == {"compiler", "search", "cli", "demo"}


def test_every_package_is_installed() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join(("canao", *path.parent.relative_to(ROOT).parts))
        for folder in (ROOT / name for name in FLOORS)
        for path in folder.rglob("__init__.py")
    }
    assert set(described["tool"]["setuptools"]["packages"]) == {"canao", *found}


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return result.stdout


@pytest.mark.parametrize(
    "module",
    [
        "canao",
        "canao.cli",
        "canao.runtime_harness",
        "canao.runtime_harness.session",
        "canao.runtime_harness.bench",
        "canao.runtime_harness.verify",
        "canao.runtime_harness.devices",
        "canao.targets",
    ],
)
def test_the_harness_loads_neither_torch_nor_the_compiler(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_a_session_runs_without_torch_or_the_compiler(sample_bundle: Path) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers', 'torch_mlir') or name.startswith(
            'iree.compiler'
        ):
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
import canao
with canao.load({str(sample_bundle)!r}) as session:
    print(session(input_ids=[[5, 6, 7]])['last_hidden_state'].shape)
"""
    assert run(code).strip() == "(1, 3, 32)"


def test_a_wrong_call_does_not_wait_for_torch() -> None:
    code = """
import sys
import canao
from canao.errors import InputError
for call in ({"target": "toaster"}, {"seq_len": 0}, {"precision": "f12"}, {}):
    try:
        canao.compile("no/such/model", **call)
    except InputError:
        print(sorted({"torch", "transformers", "torch_mlir"} & set(sys.modules)))
"""
    assert run(code).split() == ["[]"] * 4


def test_importing_canao_takes_under_a_third_of_a_second() -> None:
    # Of processor time, the best of several: a busy machine adds to the clock on the wall, not
    # to this. The bound is part of what `import canao` promises.
    code = "import time; t = time.process_time(); import canao; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.3
