"""Opening a bundle: cheap checks at once, each file's hash when it is first read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import RLock
from typing import Protocol

from ...errors import BundleError, InputError
from .atomic import create_file, os_errors
from .directory_source import DirectorySource
from .fields import MAX_JSON_BYTES
from .manifest import Manifest
from .module_entry import ModuleEntry
from .names import MANIFEST_NAME, shown
from .numerics import Numerics, read_numerics, write_numerics
from .zip_source import ZipSource

__all__ = ["Bundle"]

_AGAIN = "copy or build the bundle again"


class _Source(Protocol):
    sizes: dict[str, int]

    def view(self, name: str) -> memoryview: ...


class Bundle:
    """A compiled model: a directory or a zip file, read through memory maps.

    ``Bundle.open`` is the way to get one. It reads the manifest and compares names and sizes;
    it does not read the files. ``read`` gives a file's bytes without copying them (a compressed
    zip member excepted) after comparing their SHA-256 once. A bundle stays readable after it
    was replaced on disk. It may be used from several threads.
    """

    def __init__(self, path: Path, source: _Source, manifest: Manifest, digest: str) -> None:
        self._path = path
        self._source = source
        self._manifest = manifest
        self._digest = digest
        self._views: dict[str, memoryview] = {}
        self._lock = RLock()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open the bundle at ``path``; milliseconds, whatever its size.

        Raises BundleError, in one sentence, if it is absent, truncated, of a newer schema,
        incomplete, has files its manifest does not list, or is built to do harm.
        """
        # Not resolved: the record of numerics lies beside the name that the user gave.
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"a bundle is named by a path, not {type(path).__name__}")
        place = Path(os.path.abspath(path))
        try:
            if not place.exists():
                raise BundleError("there is nothing there")
            source: _Source = DirectorySource(place) if place.is_dir() else ZipSource(place)
            data = _manifest_bytes(source)
            manifest = Manifest.from_bytes(data)
            _check_listing(source, manifest)
        except BundleError as error:
            raise _failure(place, error) from error.__cause__
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = BundleError(f"it cannot be read ({getattr(error, 'strerror', error)})")
            raise _failure(place, reason) from error
        return cls(place, source, manifest, hashlib.sha256(data).hexdigest())

    def __repr__(self) -> str:
        return f"Bundle({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """Where the bundle is, as an absolute path."""
        return self._path

    @property
    def manifest(self) -> Manifest:
        """What is in it, and how it was made."""
        return self._manifest

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest, in hexadecimal.

        The manifest has every file's hash, so it stands for the whole bundle.
        """
        return self._digest

    @property
    def size_bytes(self) -> int:
        """The size of all its files, the manifest included, in bytes."""
        return sum(self._source.sizes.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets it has modules for, in the manifest's order."""
        return tuple(dict.fromkeys(module.target for module in self._manifest.modules))

    def seq_lens(self, target: str) -> tuple[int, ...]:
        """Return the sequence lengths (tokens) compiled for ``target``, ascending.

        Raises InputError if there is no module for that target.
        """
        lengths = sorted(m.seq_len for m in self._manifest.modules if m.target == target)
        if not lengths:
            raise InputError(
                f"{self._path} has no module for the target {target!r}, only for "
                f"{', '.join(self.targets) or 'none'}: compile it for that target"
            )
        return tuple(lengths)

    def module(self, target: str, seq_len: int | None = None) -> ModuleEntry:
        """Return the module for ``target`` and ``seq_len`` (None: the longest).

        Raises InputError, naming what there is, if it has no such module.
        """
        lengths = self.seq_lens(target)
        wanted = lengths[-1] if seq_len is None else seq_len
        for module in self._manifest.modules:
            if (module.target, module.seq_len) == (target, wanted):
                return module
        raise InputError(
            f"{self._path} has no module for {target} at sequence length {wanted}: "
            f"use one of {', '.join(map(str, lengths))}"
        )

    def read(self, name: str) -> memoryview:
        """Return a file's bytes, read-only and not copied; its hash is compared the first time.

        Raises BundleError if it is not in the bundle or is not what the manifest says.
        """
        with self._lock:
            if name not in self._views:
                self._views[name] = self._verified(name)
            return self._views[name]

    def check(self) -> None:
        """Compare every file with its hash, now and again at each call.

        Raises BundleError, naming the first file that differs.
        """
        for name in self._manifest.files:
            self._verified(name)

    def _verified(self, name: str) -> memoryview:
        try:
            if name not in self._manifest.files:
                raise BundleError(f"it has no file {shown(name)}")
            view = self._source.view(name)
            if hashlib.sha256(view).hexdigest() != self._manifest.files[name]["sha256"]:
                raise BundleError(f"{name} is damaged or was changed, its hash differs: {_AGAIN}")
        except BundleError as error:
            raise _failure(self._path, error) from error.__cause__
        return view

    @contextlib.contextmanager
    def materialize(self, names: Iterable[str] | None = None) -> Iterator[Path]:
        """Give a directory in which ``names`` (None: all) are real files, hashes compared.

        For a directory bundle that is the bundle itself: do not write there. For a zip file
        it is a temporary directory, removed at the end. Raises BundleError for a bad file,
        CanaoError if the disk is full.
        """
        views = {name: self.read(name) for name in self._wanted(names)}
        if isinstance(self._source, DirectorySource):
            yield self._path
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="canao-", ignore_cleanup_errors=True) as scratch:
            with os_errors(f"unpacking {self._path} to {scratch} (TMPDIR chooses another place)"):
                for name, view in views.items():
                    file = Path(scratch, name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with os.fdopen(create_file(file), "wb") as output:
                        output.write(view)
            yield Path(scratch)

    def _wanted(self, names: Iterable[str] | None) -> list[str]:
        return list(self._manifest.files if names is None else dict.fromkeys(names))

    @property
    def numerics(self) -> dict[str, Numerics]:
        """Each target's check against the reference, as recorded beside this very bundle.

        Read anew at each use; a target that was never checked is absent. Raises BundleError
        if the record is damaged.
        """
        return read_numerics(self._path, self._digest)

    def record_numerics(
        self,
        target: str,
        *,
        verified: bool = True,
        device: str | None = None,
        max_abs_err: float | None = None,
        cosine: float | None = None,
        ok: bool | None = None,
    ) -> None:
        """Record the check of ``target`` beside the bundle, keeping the other targets'.

        A number that is not finite is recorded as null. Raises InputError if the bundle has no
        such target, or the place beside it cannot be written.
        """
        self.seq_lens(target)
        entry = Numerics(
            verified=verified, device=device, max_abs_err=max_abs_err, cosine=cosine, ok=ok
        )
        write_numerics(self._path, self._digest, {**self.numerics, target: entry})


def _failure(path: Path, error: BundleError) -> BundleError:
    place = str(path)
    return BundleError(
        f"{place if place.isprintable() else ascii(place)} is not a usable bundle: {error}"
    )


def _manifest_bytes(source: _Source) -> memoryview:
    if MANIFEST_NAME not in source.sizes:
        raise BundleError(f"it has no {MANIFEST_NAME}")
    # Before unpacking it: a manifest never needs so much.
    if source.sizes[MANIFEST_NAME] > MAX_JSON_BYTES:
        raise BundleError(f"its {MANIFEST_NAME} has more than {MAX_JSON_BYTES} bytes")
    return source.view(MANIFEST_NAME)


def _check_listing(source: _Source, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        if name not in source.sizes:
            raise BundleError(f"{name} is missing: {_AGAIN}")
        if source.sizes[name] != entry["bytes"]:
            raise BundleError(
                f"{name} has {source.sizes[name]} bytes instead of {entry['bytes']}, "
                f"so it was truncated or changed: {_AGAIN}"
            )
    surplus = sorted(source.sizes.keys() - manifest.files.keys() - {MANIFEST_NAME})
    if surplus:
        raise BundleError(
            f"it holds {shown(surplus[0])}, which its manifest does not list: remove that file"
        )
