"""Which of a bundle's targets a device runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import MissingDeviceError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device

__all__ = ["choose_target", "open_bundle"]


def open_bundle(bundle: Bundle | str | os.PathLike[str]) -> Bundle:
    """Return a bundle as it is, or the one at a path; raises BundleError if that is none."""
    from .bundle import Bundle

    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)


def choose_target(bundle: Bundle, device: Device, target: str | None = None) -> str:
    """Return the target whose modules ``device`` runs.

    An explicit ``target`` is checked and taken. Else, of those that fit, the one that asks for
    the most CPU features (it was compiled for the closest relative of this device); of equals,
    the first in the bundle.

    Raises MissingDeviceError if none fits, and InputError if the bundle lacks ``target``.
    """
    if target is not None:
        device.check(bundle, bundle.module(target))
        return target
    fitting: list[tuple[int, str]] = []
    refusals: dict[str, list[str]] = {}
    for name in bundle.targets:
        module = bundle.module(name)
        try:
            device.check(bundle, module)
        except MissingDeviceError as error:
            refusals.setdefault(str(error), []).append(name)
        else:
            fitting.append((len(module.features), name))
    if not fitting:
        reasons = "; ".join(f"{', '.join(who)}: {why}" for why, who in refusals.items())
        raise MissingDeviceError(
            f"{bundle.path} has no module that {device.name} can run "
            f"({reasons or 'it has none at all'})"
        )
    return max(fitting, key=lambda item: item[0])[1]
