"""Compiled modules, kept by content.

The key is a hash of everything that decides the bytes: the IR, the target, the options, the
versions of the compilers, and each pattern's name, attributes and source. What is found is
what compiling again would give, so nothing is ever invalidated. Each entry carries the hash of
its module; one that does not match is as good as none and is replaced. Entries are pruned, the
least recently used first, but not while a compilation `keeps` what it found or stored.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CanaoError
from ..leases import Leases, mark_used
from ..paths import cache_dir
from .lowering import one_line
from .request import LoweringRequest, LoweringResult

if TYPE_CHECKING:
    from ..targets import Target
    from .patterns.base import Pattern

__all__ = ["CachedModule", "compiler_digest", "fetch", "keeps", "store"]

CachedModule = tuple[Path, LoweringResult]

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_ATTEMPTS = 5
# Stands for the source of a class that no file has, so that no other process trusts its entry.
_THIS_PROCESS = uuid.uuid4().hex
_leases = Leases()


def keeps() -> AbstractContextManager[None]:
    """A block to whose end the files stay that `fetch` and `store` name in it, in any thread."""
    return _leases.block()


def fetch(request: LoweringRequest) -> CachedModule | None:
    """The module that ``request`` gave before, whole and unaltered, or None."""
    try:
        folder = cache_dir("modules") / _key(request)
        if not _leases.hold(folder):
            return None
        mark_used(folder)
        return _read(folder)
    except OSError as error:
        raise _unusable(error) from error


def store(request: LoweringRequest, module: Path, result: LoweringResult) -> CachedModule:
    """Keep ``module``; returns what `fetch` will give. Two writers at once do no harm.

    Raises `CanaoError` where the cache cannot be written (no space, no permission).
    """
    try:
        root = cache_dir("modules")
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
        try:
            _write(staged, module, result)
            _leases.hold(staged)  # also under the name that it is about to get
            return _publish(staged, root / _key(request))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise _unusable(error) from error


def _read(folder: Path) -> CachedModule | None:
    path = folder / "module.vmfb"
    try:
        envelope = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        result = LoweringResult.from_json(envelope["result"])
        expected = (envelope["bytes"], envelope["sha256"])
        found = (path.stat().st_size, _sha256(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (path, result) if found == expected else None


def _write(folder: Path, module: Path, result: LoweringResult) -> None:
    copy = folder / "module.vmfb"
    shutil.copyfile(module, copy)
    envelope = {
        "bytes": copy.stat().st_size,
        "sha256": _sha256(copy),
        "result": result.to_json(),
    }
    (folder / "result.json").write_text(json.dumps(envelope), encoding="utf-8")
    for path in (copy, folder / "result.json", folder):
        _sync(path)


def _publish(staged: Path, folder: Path) -> CachedModule:
    for _ in range(_ATTEMPTS):
        try:
            os.rename(staged, folder)
            _sync(folder.parent)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        found = _read(folder) if _leases.hold(folder) else None
        if found is not None:  # ours, or that of a process that was faster
            return found
        _discard(folder)
    raise OSError(errno.EBUSY, "another process keeps damaging the entry", str(folder))


def _discard(folder: Path) -> None:
    """Move a damaged entry out of the way, in one step, and delete it."""
    with tempfile.TemporaryDirectory(
        prefix=".old-", dir=folder.parent, ignore_cleanup_errors=True
    ) as place:
        try:
            os.rename(folder, Path(place) / "entry")
        except FileNotFoundError:
            return


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unusable(error: OSError) -> CanaoError:
    return CanaoError(
        f"The cache of compiled modules cannot be used ({one_line(str(error))}): free some "
        "space there, or set CANAO_CACHE_DIR to another folder."
    )


def compiler_digest(target: Target) -> str:
    """16 hexadecimal digits that differ where the compiler may make another module for ``target``
    of the same request: another IREE, other sources, patterns, or choices of kernels."""
    from .kernels.choosing.tuning import choices_for

    parts = {**_compiler(target, "auto", ()), "choices": dict(choices_for(target)[0])}
    return _digest({"target": target.to_json(), **parts})[:16]


def _key(request: LoweringRequest) -> str:
    compiler = _compiler(request.target, request.fusion, request.drop_patterns)
    return _digest({"request": request.to_json(), **compiler})[:40]


def _compiler(target: Target, fusion: str, drop: Sequence[str]) -> dict[str, Any]:
    """What compiles, whatever is compiled."""
    from .patterns.registry import pipeline

    return {
        "arch": target.arch,  # an empty triple means that of this machine
        "iree": importlib.metadata.version("iree-base-compiler"),
        "compiler": _sources(_own_files()),
        "patterns": [
            [stage, pattern.name, _fingerprint(pattern)]
            for stage, patterns in pipeline(target, fusion=fusion, drop=drop).items()
            for pattern in patterns
        ],
    }


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(pattern: Pattern) -> list[Any]:
    """What decides how a pattern rewrites: its class, its attributes, its classes' sources."""
    kind = type(pattern)
    attributes = [[name, repr(value)] for name, value in sorted(vars(pattern).items())]
    sources = [_class_source(base) for base in kind.__mro__ if base.__module__ != "builtins"]
    return [f"{kind.__module__}.{kind.__qualname__}", attributes, sources]


def _class_source(kind: type) -> str:
    """A hash of the file of a class, with the others of its package: they may help it."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        return f"{_THIS_PROCESS}-{id(kind)}"
    if kind.__module__.startswith(f"{__package__}."):  # hashed once, as the compiler's own
        return kind.__module__
    if not getattr(module, "__package__", None):
        return _sources(_stamped([Path(file)]))
    return _sources(_stamped({Path(file), *Path(file).parent.glob("*.py")}))


def _own_files() -> tuple[tuple[str, int, int], ...]:
    return _stamped(Path(__file__).parent.rglob("*.py"))


def _stamped(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Each file with its time and size, so that an edited one is read again."""
    stats = [(str(file), file.stat()) for file in sorted(files)]
    return tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats)


@lru_cache(maxsize=64)
def _sources(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        content = Path(file).read_bytes()
        digest.update(Path(file).name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()
