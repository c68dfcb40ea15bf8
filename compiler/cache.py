"""Compiled modules, kept by content.

The key is a hash of everything that decides the bytes: the IR, the target, the options, the
versions of the compilers and the source of every pattern. What is found is what compiling
again would give, so nothing is ever invalidated.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from ..paths import cache_dir
from .lowering import LoweringRequest, LoweringResult

__all__ = ["CachedModule", "fetch", "store"]

CachedModule = tuple[Path, LoweringResult]


def fetch(request: LoweringRequest) -> CachedModule | None:
    """The module that ``request`` gave before, or None."""
    folder = cache_dir("modules") / _key(request)
    try:
        text = (folder / "result.json").read_text(encoding="utf-8")
        result = LoweringResult.from_json(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    module = folder / "module.vmfb"
    return (module, result) if module.is_file() else None


def store(request: LoweringRequest, module: Path, result: LoweringResult) -> CachedModule:
    """Keep ``module``; returns what `fetch` will give. Two writers at once do no harm."""
    root = cache_dir("modules")
    folder = root / _key(request)
    staged = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        shutil.copyfile(module, staged / "module.vmfb")
        (staged / "result.json").write_text(json.dumps(result.to_json()), encoding="utf-8")
        if folder.exists() and not (folder / "result.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder / "module.vmfb", result


def _key(request: LoweringRequest) -> str:
    parts = {"request": request.to_json(), "toolchain": _toolchain()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _toolchain() -> dict[str, str]:
    version = importlib.metadata.version
    return {"iree": version("iree-base-compiler"), "patterns": _sources(_pattern_files())}


def _pattern_files() -> tuple[str, ...]:
    from .patterns.registry import registered

    modules = {type(pattern).__module__ for pattern in registered()}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    here = Path(__file__).parent
    own = {str(path) for path in [*here.glob("*.py"), *(here / "patterns").glob("*.py")]}
    return tuple(sorted(own | {file for file in files if file}))


@lru_cache(maxsize=8)
def _sources(files: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).name.encode() + b"\0" + Path(file).read_bytes())
    return digest.hexdigest()
