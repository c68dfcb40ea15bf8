"""Keeping the cache small: what was used least recently goes first, never what is in use.

Only what can be made again without a network is counted and deleted: compiled modules, bundles
for which no other place was named, and the demo's. Any number of processes may do this.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .leases import move_unused
from .paths import cache_dir

__all__ = ["cache_limit", "prune_cache"]

_PARTS = ("modules", "bundles", "demo")
_LIMIT_GB = 4.0
# What is so young, in seconds, may be about to be held; under a hidden name, be unfinished.
_YOUNG_S = 60.0
_UNFINISHED_S = 24 * 3600.0


def cache_limit() -> int:
    """The bytes that the cache may take, from CANAO_CACHE_LIMIT in GB (10^9 bytes; 4 if unset)."""
    configured = os.environ.get("CANAO_CACHE_LIMIT")
    try:
        size = float(configured) if configured else _LIMIT_GB
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise InputError(
            f"CANAO_CACHE_LIMIT must be the size of the cache in GB, such as 4 or 0.5, "
            f"not {configured!r}."
        )
    return int(size * 1e9)


def prune_cache(limit: int) -> int:
    """Delete from the cache until it takes at most ``limit`` bytes; returns how many it freed.

    Never raises for what cannot be read or deleted: it is left to the next time.
    """
    root = cache_dir()
    freed = 0
    with _alone(root) as alone:
        if not alone:  # what is too much is already being deleted
            return 0
        entries = sorted(_entries(root), key=lambda entry: entry.used)
        excess = sum(entry.bytes for entry in entries) - limit
        for entry in entries:
            if entry.settled and (entry.hidden or freed < excess):
                freed += entry.delete()
    return freed


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A folder with the files beside it that belong to it (``NAME.*``)."""

    folder: Path
    beside: tuple[Path, ...]
    bytes: int
    used: float

    @property
    def hidden(self) -> bool:
        """Whether a process is still writing it, or was."""
        return self.folder.name.startswith(".")

    @property
    def settled(self) -> bool:
        """Whether it is so old that it can be judged."""
        return time.time() - self.used > (_UNFINISHED_S if self.hidden else _YOUNG_S)

    def delete(self) -> int:
        """Delete it unless it is in use; return the bytes that this freed."""
        try:
            aside = tempfile.mkdtemp(prefix=".old-", dir=self.folder.parent)
        except OSError:
            return 0
        # Aside first, at one stroke: nobody finds half an entry.
        moved = move_unused(self.folder, Path(aside, "entry"))
        shutil.rmtree(aside, ignore_errors=True)
        if not moved:
            return 0
        for path in self.beside:
            with contextlib.suppress(OSError):
                path.unlink()
        return self.bytes


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether no other process is at this now; none starts before the end of the block."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _entries(root: Path) -> Iterator[_Entry]:
    for part in _PARTS:
        with contextlib.suppress(OSError):
            listed = sorted((root / part).iterdir())
            for folder in listed:
                with contextlib.suppress(OSError):
                    if folder.is_dir() and not folder.is_symlink():
                        beside = [
                            path
                            for path in listed
                            if path.name.startswith(f"{folder.name}.") and path.is_file()
                        ]
                        files = [*folder.rglob("*"), *beside]
                        yield _Entry(
                            folder=folder,
                            beside=tuple(beside),
                            bytes=sum(p.lstat().st_size for p in files if p.is_file()),
                            used=folder.stat().st_mtime,
                        )
