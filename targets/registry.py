"""The table of targets: the built-in ones, those of other packages, and those added by code.

Another package adds targets through the entry-point group ``canao.targets``; each entry
loads to a Target or to an iterable of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock

from ..errors import InputError
from .arm64 import ARM64, ARM64_I8MM
from .host import host_target
from .target import Target
from .vulkan import VULKAN_ADRENO, VULKAN_LLVMPIPE, VULKAN_MALI

__all__ = ["ENTRY_POINT_GROUP", "get", "names", "register"]

ENTRY_POINT_GROUP = "canao.targets"
_HOST = "host"

_lock = RLock()
_targets: dict[str, Target] = {
    target.name: target
    for target in (ARM64, ARM64_I8MM, VULKAN_LLVMPIPE, VULKAN_ADRENO, VULKAN_MALI)
}
_entry_points_loaded = False


def register(target: Target, *, replace: bool = False) -> None:
    """Add ``target`` to the table.

    Raises InputError if its name is taken and ``replace`` is false, if the name is ``host``
    (which is always this machine), or if it is not a Target.
    """
    _load_entry_points()
    _add(target, replace=replace)


def get(name: str) -> Target:
    """Return the target called ``name``; raises InputError, naming the known ones, if none is.

    ``"host"`` is detected at each call.
    """
    if name == _HOST:
        return host_target()
    _load_entry_points()
    with _lock:
        target = _targets.get(name)
    if target is None:
        raise InputError(f"there is no target {name!r}: use one of {', '.join(names())}")
    return target


def names() -> tuple[str, ...]:
    """Return every target's name: ``host`` first, then in the order of registration."""
    _load_entry_points()
    with _lock:
        return (_HOST, *_targets)


def _add(target: object, *, replace: bool = False) -> None:
    if not isinstance(target, Target):
        raise InputError(f"a target must be a Target, not {type(target).__name__}")
    if target.name == _HOST:
        raise InputError(
            "the target 'host' is always this machine: give the new target another name"
        )
    with _lock:
        if target.name in _targets and not replace:
            raise InputError(
                f"there is a target {target.name!r} already: "
                "choose another name, or pass replace=True"
            )
        _targets[target.name] = target


def _load_entry_points() -> None:
    global _entry_points_loaded
    from importlib import metadata  # slow to import, and most runs need no more than one target

    with _lock:
        if _entry_points_loaded:
            return
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
            where = (
                f"entry point {entry.name!r} of package {entry.dist.name if entry.dist else ''}"
            )
            try:
                loaded = entry.load()
                found = list(loaded) if isinstance(loaded, Iterable) else [loaded]
            except Exception as error:
                raise InputError(
                    f"{where} in group {ENTRY_POINT_GROUP} failed to load ({error}): "
                    "repair or uninstall that package"
                ) from error
            for target in found:
                # The same object again is not a clash: an earlier load stopped half-way.
                if isinstance(target, Target) and _targets.get(target.name) == target:
                    continue
                try:
                    _add(target)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from error
        _entry_points_loaded = True
