"""canao itself, through its public interface: compile to a bundle, load it, call it."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from common.paths import ROOT
from common.protocol import Array, ModelSpec, Peer, Precision, Runner, artifact_path

__all__ = ["PEERS"]

_PACKAGES = ("iree-base-compiler", "iree-base-runtime", "torch-mlir", "torch", "transformers")
_FLOORS = ("compiler", "runtime_harness", "targets")


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        import canao  # type: ignore[import-not-found,unused-ignore]

        self.info: dict[str, Any] = {}
        self._session = canao.load(path, device="local", threads=threads)

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        outputs = self._session(input_ids=input_ids, attention_mask=attention_mask)
        return tuple(outputs.values())


def _build(precision: Precision, model: ModelSpec, seq_len: int, cache: Path) -> Path:
    path = artifact_path(cache, model, seq_len, "canao", _PACKAGES, _sources())
    path = path.with_name(f"{path.name}-{precision}")
    if not path.exists():
        import canao  # type: ignore[import-not-found,unused-ignore]

        path.parent.mkdir(parents=True, exist_ok=True)
        for outdated in path.parent.glob(f"{model.name}-{seq_len}-*-{precision}"):
            shutil.rmtree(outdated)
        canao.compile(
            model.directory, target="host", seq_len=seq_len, precision=precision, output=path
        )
    return path


def _prepare(path: Path, model: ModelSpec, seq_len: int, threads: int) -> Runner:
    return _Session(path, threads)


def _sources() -> str:
    """A hash of canao's own code: a bundle of another version is not this canao's result."""
    digest = hashlib.sha256()
    files = [*ROOT.glob("*.py"), *(f for floor in _FLOORS for f in ROOT.glob(f"{floor}/**/*"))]
    for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _offered(precision: Precision) -> bool:
    from canao.targets import get  # type: ignore[import-not-found,unused-ignore]

    return precision in get("host").precisions


def _peer(precision: Precision) -> Peer:
    return Peer(
        name=f"canao-{precision}",
        title="canao",
        precision=precision,
        environment="main",
        packages=_PACKAGES,
        build=partial(_build, precision),
        prepare=_prepare,
        ours=True,
        offered=partial(_offered, precision),
    )


PEERS = (_peer("f32"), _peer("bf16"), _peer("int8"))
