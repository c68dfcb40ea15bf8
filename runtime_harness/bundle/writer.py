"""Writing a bundle: all of it or nothing, and the same bytes for the same content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import BundleError, InputError
from .atomic import os_errors, staged, swap_in, sync_directory
from .fields import parse_json
from .manifest import Manifest
from .names import MANIFEST_NAME, check_names, shown
from .reader import Bundle
from .sinks import Content, DirectorySink, Sink, ZipSink

__all__ = ["SUFFIX", "check_destination", "write_bundle"]

SUFFIX = ".canao"
"""A path that ends so is written as one file, any other as a directory."""

# What tells a bundle's manifest.json from those that other programs write.
_MARKS: dict[str, type] = {"schema": int, "canao": str, "files": dict}


def check_destination(path: str | os.PathLike[str]) -> None:
    """Raise InputError, before any work is done, if no bundle may be written to ``path``.

    A directory is replaced only if it is empty or a bundle with no other files in it.
    """
    if not os.fspath(path):
        raise InputError("the place for the bundle is empty: name a directory or a .canao file")
    if "\0" in os.fspath(path):
        raise InputError("a path cannot hold a null character")
    place = Path(os.path.realpath(path))
    if not place.name:
        raise InputError(f"{place} cannot be replaced by a bundle: choose another place")
    if not place.parent.is_dir():
        raise InputError(f"the directory {place.parent} does not exist: create it first")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise InputError(f"the directory {place.parent} cannot be written: choose another place")
    if not place.exists():
        return
    if place.name.endswith(SUFFIX):
        if not place.is_file():
            raise InputError(f"{place} is not a file: remove it or choose another name")
    elif not place.is_dir():
        raise InputError(
            f"{place} is not a directory: choose another name, or one that ends in {SUFFIX}"
        )
    else:
        with os_errors(f"reading {place}"):
            stranger = _stranger(place)
        if stranger is not None:
            raise InputError(
                f"{place} holds {shown(stranger)}, which is not part of a bundle: "
                "choose another place, or empty that directory"
            )


def _stranger(directory: Path) -> str | None:
    """Return a file in ``directory`` that no bundle brought there, if there is one."""
    listed: set[str] = set()
    try:
        # Leniently, so that a damaged bundle and one of a newer schema can be replaced too.
        value: Any = parse_json((directory / MANIFEST_NAME).read_bytes(), MANIFEST_NAME)
        if all(isinstance(value[key], kind) for key, kind in _MARKS.items()):
            listed = {MANIFEST_NAME, *value["files"]}
    except (OSError, BundleError, TypeError, KeyError, IndexError):
        pass
    for parent, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for name in sorted(names + links):
            relative = Path(parent, name).relative_to(directory).as_posix()
            if relative not in listed:
                return relative
    return None


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, Content],
) -> Bundle:
    """Write a bundle to ``path`` and open it.

    ``manifest.files`` is ignored and filled in; ``files`` maps each name in the bundle to its
    bytes or to a file to copy. The bundle is one zip file if ``path`` ends in ``.canao``, else
    a directory. What was there before stays as it is until the new bundle is complete and on
    disk, and is then replaced at one stroke; a failure leaves nothing behind.

    Raises InputError if the place, the manifest or the files are wrong (BundleError for what
    no reader would accept), CanaoError if the disk is full.
    """
    check_destination(path)
    check_names([MANIFEST_NAME, *files])
    # What the reader would refuse is refused before anything is written.
    placeholder = {"sha256": "0" * 64, "bytes": 0}
    draft = replace(manifest, files=dict.fromkeys(files, placeholder))
    draft = Manifest.from_bytes(draft.to_bytes())

    place = Path(os.path.realpath(path))
    as_file = place.name.endswith(SUFFIX)
    with os_errors(f"writing {place}"), staged(place) as temporary:
        sink: Sink = ZipSink(temporary) if as_file else DirectorySink(temporary)
        try:
            listed = {name: sink.add(name, files[name]) for name in sorted(files)}
            sink.add(MANIFEST_NAME, replace(draft, files=listed).to_bytes())
            sink.close()
        except BaseException:
            sink.abandon()
            raise
        if as_file:
            os.replace(temporary, place)
        else:
            swap_in(temporary, place)
        sync_directory(place.parent)
    return Bundle.open(path)
