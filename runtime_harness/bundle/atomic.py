"""Putting a finished file or directory in its place at one stroke.

Whatever happens before that stroke, an exhausted disk and Ctrl-C included, leaves what was
there as it was, and removes the unfinished copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import CanaoError, InputError

__all__ = ["create_file", "os_errors", "replace_file", "staged", "swap_in", "sync_directory"]

_CALLER_ERRORS = {
    errno.EACCES,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Turn OSError into one sentence: InputError for a bad path, CanaoError for a full disk."""
    try:
        yield
    except OSError as error:
        kind = InputError if error.errno in _CALLER_ERRORS else CanaoError
        raise kind(f"{doing} failed: {error.strerror or error}") from error


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield an unused hidden name beside ``path``; at the end remove what is left there."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
    finally:
        try:
            _remove(temporary)
        except BaseException:  # a Ctrl-C during the removal: finish it, then pass it on
            _remove(temporary)
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        import shutil

        # Twice, for what one pass may leave: a network file system's renamed open files.
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def create_file(path: Path) -> int:
    """Open a new file for writing and reading; return its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` as the file ``path``, replacing what was there at one stroke."""
    with os_errors(f"writing {path}"), staged(path) as temporary:
        with os.fdopen(create_file(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)


def swap_in(temporary: Path, path: Path) -> None:
    """Move the directory ``temporary`` to ``path``.

    If a directory with content is there, it ends up at ``temporary``, for the caller to remove.
    """
    try:
        os.rename(temporary, path)  # which also replaces an empty directory
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    if not _exchange(temporary, path):
        _exchange_in_steps(temporary, path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one system call; False where the system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return bool(renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def _exchange_in_steps(temporary: Path, path: Path) -> None:
    aside = temporary.with_name(f"{temporary.name}.old")
    try:
        os.rename(path, aside)
        os.rename(temporary, path)
        os.rename(aside, temporary)
    except BaseException:
        if aside.exists():
            os.rename(aside, temporary if path.exists() else path)
        raise
