"""IREE's devices inside this process: made, shared, and left alone by forked children."""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
from collections.abc import Iterator
from threading import Lock
from typing import Any

from ..errors import BundleError, CanaoError, DeviceError, MissingDeviceError
from .forking import in_child
from .keeping import keep_for_ever
from .tools import error_line

__all__ = ["create_hal_device", "forget", "iree_errors"]

# On CPUs what a call needs beside its outputs is kept for the next: new memory comes zeroed, which
# takes longer than a small layer.
_ALLOCATORS = ["caching"]
_lock = Lock()
_drivers: dict[str, Any] = {}
_shared_devices: dict[str, Any] = {}
_parent_used_gpu = False


def create_hal_device(uri: str, *, threads: int = 1) -> Any:
    """Return an IREE HAL device, e.g. for ``"local-sync"``, ``"local-task"``, ``"vulkan"``.

    For ``local-task``, ``threads`` is the number of its workers. Devices on this CPU are new
    ones; any other is created once, because that takes long, and shared. Raises DeviceError.
    """
    with _lock, iree_errors(f"the IREE device {uri}", DeviceError):
        if uri == "local-task":
            return _create_pool(threads)
        if uri == "local-sync":
            return _driver(uri).create_device_by_uri(uri, allocators=_ALLOCATORS)
        if _parent_used_gpu:
            raise DeviceError(
                f"{uri} was in use before this process forked, and drivers do not outlive that: "
                "start processes by 'spawn' or 'forkserver'"
            )
        if uri not in _shared_devices:
            _shared_devices[uri] = _driver(uri).create_device_by_uri(uri)
        return _shared_devices[uri]


def _driver(uri: str) -> Any:
    from iree.runtime import _binding as iree

    # Kept, because the binding's own cache is cleared now and then.
    if uri not in _drivers:
        _drivers[uri] = iree.get_cached_hal_driver(uri)
    return _drivers[uri]


def _create_pool(threads: int) -> Any:
    from iree.runtime import _binding as iree

    # The number of workers is a flag of the whole process, read when a driver is created, and
    # drivers are cached. So: set it, create an own driver, and put everything back.
    iree.parse_flags(f"--task_topology_group_count={threads}")
    iree.clear_hal_driver_cache()
    try:
        driver = iree.get_cached_hal_driver("local-task")
        return driver.create_device_by_uri("local-task", allocators=_ALLOCATORS)
    finally:
        iree.clear_hal_driver_cache()
        iree.parse_flags("--task_topology_group_count=0")
        iree.parse_flags(*shlex.split(os.environ.get("IREE_PY_RUNTIME_FLAGS", "")))


def forget(device: Any) -> None:
    """Share a device no longer, because it may be lost; those who have it keep it."""
    with _lock:
        for uri, shared in list(_shared_devices.items()):
            if shared is device:
                del _shared_devices[uri]


def _leave_to_parent() -> None:
    """In a forked child: make no use of the parent's drivers and devices."""
    global _lock, _parent_used_gpu
    _lock = Lock()  # another thread of the parent may have held it
    _parent_used_gpu = _parent_used_gpu or bool(_shared_devices)
    if _drivers:
        from iree.runtime import _binding as iree

        keep_for_ever((dict(_shared_devices), dict(_drivers)))
        iree.clear_hal_driver_cache()
        _let_go()


def _let_go() -> None:
    _shared_devices.clear()
    _drivers.clear()


# IREE's objects must be gone before the interpreter is, or its binding complains.
atexit.register(_let_go)
in_child(_leave_to_parent)


@contextlib.contextmanager
def iree_errors(what: str, kind: type[BundleError] | type[DeviceError]) -> Iterator[None]:
    """Turn the runtime's exceptions into ``kind``, or into MissingDeviceError if it is lost."""
    try:
        yield
    except CanaoError:
        raise
    except Exception as error:  # the binding turns each status into another kind
        line = error_line(str(error)) or type(error).__name__
        if "RESOURCE_EXHAUSTED" in line:
            raise DeviceError(f"{what} cannot be loaded, memory is exhausted: {line}") from error
        if "INCOMPATIBLE" in line:
            raise MissingDeviceError(f"{what} cannot run on this device: {line}") from error
        raise kind(f"{what} cannot be loaded: {line}") from error
