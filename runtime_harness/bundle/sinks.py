"""Where a new bundle's files go while it is written: into a directory or into one zip file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from .atomic import create_file, sync_directory
from .zip_writer import ZipWriter

__all__ = ["Content", "DirectorySink", "Sink", "ZipSink"]

Content = bytes | bytearray | memoryview | Path
"""A file's bytes, or a file to copy them from."""

_CHUNK = 1024 * 1024


class Sink(Protocol):
    """Takes files one by one; ``close`` makes them durable, ``abandon`` only lets go."""

    def add(self, name: str, content: Content) -> dict[str, Any]:
        """Store one file and return its ``sha256`` and ``bytes``, as the manifest lists them."""

    def close(self) -> None:
        """Finish, with everything on disk when it returns."""

    def abandon(self) -> None:
        """Close what is open, in whatever state it is."""


class _Content:
    """A file's chunks, hashed as they pass, so that what is listed is what was stored."""

    def __init__(self, content: Content) -> None:
        self._content = content if isinstance(content, Path) else memoryview(content).cast("B")
        self._sha256 = hashlib.sha256()
        self._size = 0

    def expected(self) -> int:
        """The size in bytes, before anything was read."""
        if isinstance(self._content, Path):
            return self._content.stat().st_size
        return len(self._content)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the content piece by piece."""
        if isinstance(self._content, Path):
            with self._content.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield self._pass(chunk)
        else:
            yield self._pass(self._content)

    def _pass(self, chunk: bytes | memoryview) -> bytes | memoryview:
        self._sha256.update(chunk)
        self._size += len(chunk)
        return chunk

    def listed(self) -> dict[str, Any]:
        return {"sha256": self._sha256.hexdigest(), "bytes": self._size}


class DirectorySink:
    """A new directory at ``path``."""

    def __init__(self, path: Path) -> None:
        self._root = path
        self._directories = [path]
        path.mkdir()

    def add(self, name: str, content: Content) -> dict[str, Any]:
        """Write one file through to the disk."""
        passing = _Content(content)
        file = self._root / name
        self._make(file.parent)
        with os.fdopen(create_file(file), "wb") as output:
            for chunk in passing.chunks():
                output.write(chunk)
            output.flush()
            os.fsync(output.fileno())
        return passing.listed()

    def _make(self, directory: Path) -> None:
        if directory not in self._directories:
            self._make(directory.parent)
            directory.mkdir()
            self._directories.append(directory)

    def close(self) -> None:
        """Make the names durable; the files are already."""
        for directory in self._directories:
            sync_directory(directory)

    def abandon(self) -> None:
        """Nothing is left open."""


class ZipSink:
    """A new zip file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(create_file(path), "w+b")
        self._writer = ZipWriter(self._file)

    def add(self, name: str, content: Content) -> dict[str, Any]:
        """Append one member."""
        passing = _Content(content)
        self._writer.add(name, passing.chunks(), passing.expected())
        return passing.listed()

    def close(self) -> None:
        """Write the zip directory, through to the disk."""
        self._writer.finish()
        self._file.close()

    def abandon(self) -> None:
        """Close the file without caring for what is still buffered."""
        with contextlib.suppress(OSError):  # the disk is full, and the caller has been told
            self._file.close()
