"""Folders of the cache that somebody uses: a shared lock on each keeps it from being pruned.

The locks are the system's own (flock), held by every process for itself; whatever ends a
process gives them back. On a file system without them nothing can be held, nor pruned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType

__all__ = ["Lease", "Leases", "mark_used", "move_unused"]


class Lease:
    """Holds a folder until it is released, or forgotten. Raises OSError if there is none."""

    def __init__(self, folder: Path) -> None:
        descriptor = _open(folder)
        self._release = weakref.finalize(self, os.close, descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        status = os.fstat(descriptor)
        self.identity = (status.st_dev, status.st_ino)
        """What the folder is, however it may be called by now."""

    def release(self) -> None:
        """Give the folder back; once is enough."""
        self._release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Leases:
    """Leases that are all given back when the last of the blocks that may need them ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._held: dict[tuple[int, int], Lease] = {}

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """Hold, to the end of this block at least, what anybody asks for from now on."""
        with self._lock:
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    for lease in self._held.values():
                        lease.release()
                    self._held.clear()

    def hold(self, folder: Path) -> bool:
        """Hold a folder, in a block; whether there is such a folder."""
        try:
            lease = Lease(folder)
            status = folder.stat()
        except OSError:
            return False
        with self._lock:
            if self._blocks:
                self._held.setdefault(lease.identity, lease)
        # It may have been pruned before it was held, and even be there again.
        return lease.identity == (status.st_dev, status.st_ino)


def mark_used(folder: Path) -> None:
    """Note that a folder was used now, as its time of change; where that may not be, do not."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def move_unused(folder: Path, destination: Path) -> bool:
    """Rename a folder unless somebody holds it; whether that was done."""
    try:
        descriptor = _open(folder)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(folder, destination)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
