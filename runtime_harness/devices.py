"""The table of devices: the built-in ones, those of other packages, and those added by code.

Another package adds a device through the entry-point group ``canao.devices``: the entry's name
is the device's, and it loads to a callable that takes an address (what stands after the colon
in ``name:address``, or ``""``) and returns the device.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from threading import RLock

from ..errors import InputError
from .device import Device, DeviceInfo

__all__ = ["ENTRY_POINT_GROUP", "DeviceFactory", "get", "infos", "names", "register"]

ENTRY_POINT_GROUP = "canao.devices"

DeviceFactory = Callable[[str], Device]


def _local(address: str) -> Device:
    from .local import LocalDevice

    _refuse_address("local", address)
    return LocalDevice()


def _vulkan(address: str) -> Device:
    from .vulkan import VulkanDevice

    _refuse_address("vulkan", address)
    return VulkanDevice()


def _qemu(address: str) -> Device:
    from .qemu import QemuDevice

    _refuse_address("qemu", address)
    return QemuDevice()


_lock = RLock()
_factories: dict[str, DeviceFactory] = {"local": _local, "vulkan": _vulkan, "qemu": _qemu}
_entry_points_loaded = False


def register(name: str, factory: DeviceFactory, *, replace: bool = False) -> None:
    """Add a device to the table.

    Raises InputError if the name is taken and ``replace`` is false, or is empty or has a colon.
    """
    _load_entry_points()
    _add(name, factory, replace=replace)


def get(name: str) -> Device:
    """Return the device called ``name``, which may carry an address after a colon.

    The device need not be available: its ``info()`` tells. Raises InputError, naming the known
    devices, if there is none of that name or the address is not one it takes.
    """
    if not isinstance(name, str):
        raise InputError(f"a device is named by a string, not {type(name).__name__}")
    _load_entry_points()
    kind, _, address = name.partition(":")
    with _lock:
        factory = _factories.get(kind)
    if factory is None:
        raise InputError(f"there is no device {name!r}: use one of {', '.join(names())}")
    return factory(address)


def names() -> tuple[str, ...]:
    """Return every device's name, the built-in ones first."""
    _load_entry_points()
    with _lock:
        return tuple(_factories)


def infos() -> tuple[DeviceInfo, ...]:
    """Return what is known of every device."""
    return tuple(get(name).info() for name in names())


def _refuse_address(name: str, address: str) -> None:
    if address:
        raise InputError(f"the device {name!r} takes no address: write {name!r}, not {address!r}")


def _add(name: str, factory: DeviceFactory, *, replace: bool = False) -> None:
    if not name or ":" in name:
        raise InputError(f"a device's name must not be empty or have a colon: {name!r}")
    if not callable(factory):
        raise InputError(f"the device {name!r} must be given as a callable that returns it")
    with _lock:
        if name in _factories and not replace:
            raise InputError(
                f"there is a device {name!r} already: choose another name, or pass replace=True"
            )
        _factories[name] = factory


def _load_entry_points() -> None:
    global _entry_points_loaded
    with _lock:
        if _entry_points_loaded:
            return
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
            owner = entry.dist.name if entry.dist else "?"
            where = f"entry point {entry.name!r} of package {owner} in {ENTRY_POINT_GROUP}"
            try:
                factory = entry.load()
            except Exception as error:
                raise InputError(
                    f"{where} failed to load ({error}): repair or uninstall that package"
                ) from error
            # The same object again is not a clash: an earlier load stopped half-way.
            if _factories.get(entry.name) is factory:
                continue
            try:
                _add(entry.name, factory)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        _entry_points_loaded = True
