"""Which names a file in a bundle may have: plain, relative, the same on every file system."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import BundleError

__all__ = ["MANIFEST_NAME", "MAX_FILES", "check_name", "check_names", "shown"]

MANIFEST_NAME = "manifest.json"
MAX_FILES = 4096
"""The most files in one bundle; a real one has a few dozen."""

_MAX_LENGTH = 255
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")


def shown(name: str) -> str:
    """Quote a name that nobody vouches for, so that it may stand in a message."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def check_name(name: str) -> None:
    """Raise BundleError unless ``name`` is one a bundle's file may have."""
    parts = name.split("/")
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        fault = "is an absolute path"
    elif ".." in parts or ".." in name.split("\\"):
        fault = "leads out of the bundle"
    elif len(name) > _MAX_LENGTH or not all(map(_COMPONENT.fullmatch, parts)):
        fault = "is not one that a bundle may hold"
    else:
        return
    raise BundleError(f"the file name {shown(name)} {fault}: do not trust this bundle")


def check_names(names: Iterable[str]) -> None:
    """Raise BundleError unless the names are allowed, few, and can all exist side by side."""
    seen: dict[str, str] = {}
    for name in names:
        check_name(name)
        if len(seen) == MAX_FILES:
            raise BundleError(f"it holds more than {MAX_FILES} files: do not trust this bundle")
        # Some file systems ignore case, so names that differ in case alone would collide.
        if name.lower() in seen:
            raise BundleError(
                f"the file name {shown(name)} appears twice: do not trust this bundle"
            )
        seen[name.lower()] = name
    for key, name in seen.items():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise BundleError(
                    f"the file name {shown(name)} lies below another file: "
                    "do not trust this bundle"
                )
