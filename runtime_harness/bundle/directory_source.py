"""A bundle in a plain directory, each file memory-mapped when it is read."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ...errors import BundleError
from ...leases import Lease
from .names import MAX_FILES, check_name, check_names, shown

__all__ = ["DirectorySource"]

_MAX_DEPTH = 8


class DirectorySource:
    """The files of a directory bundle. ``sizes`` maps each name to its size in bytes.

    Raises BundleError if anything in it is not a plain file or directory. Links are refused
    even if they stay inside: what a bundle is must not depend on anything around it.
    """

    def __init__(self, path: Path) -> None:
        self._root = path
        # Files are mapped when they are first read, so they must be there until then.
        self._lease = Lease(path)
        self.sizes = dict(_walk(path, ""))
        check_names(self.sizes)

    def view(self, name: str) -> memoryview:
        """Return the bytes of a file through a new memory map."""
        try:
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                if size != self.sizes[name]:
                    raise BundleError(
                        f"{name} was changed since the bundle was opened: open it again"
                    )
                if size == 0:  # which cannot be mapped
                    return memoryview(b"")
                return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BundleError(f"{name} cannot be read: {error.strerror}") from error


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, int]]:
    if prefix.count("/") > _MAX_DEPTH:
        raise BundleError(f"the directory {shown(prefix)} is nested too deeply")
    with os.scandir(directory) as entries:
        for count, entry in enumerate(sorted(entries, key=lambda item: item.name)):
            name = prefix + entry.name
            check_name(name)
            if count > MAX_FILES:
                raise BundleError(f"it holds more than {MAX_FILES} files")
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(directory / entry.name, f"{name}/")
            elif stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            else:
                raise BundleError(
                    f"{name} is a link or a special file: a bundle holds plain files only"
                )
