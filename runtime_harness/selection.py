"""Which of a bundle's targets a device runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import MissingDeviceError
from .refusals import DeviceAbsentError, ModuleRefusedError, Objection

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device

__all__ = ["choose_target", "open_bundle"]

_REMEDY = "compile the model for a target that it runs ('canao devices' lists them)"


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
    refusals: list[tuple[str, Objection]] = []
    for name in bundle.targets:
        module = bundle.module(name)
        try:
            device.check(bundle, module)
        except DeviceAbsentError:
            raise  # what is missing is the device, whatever the module
        except MissingDeviceError as error:
            # Not the error itself: by its frames it would keep the caller's devices alive.
            refusals.append((name, _objection(error)))
        else:
            fitting.append((len(module.features), name))
    if not fitting:
        raise MissingDeviceError(
            f"{bundle.path} has no module that {device.name} can run {_explained(refusals)}"
        )
    return max(fitting, key=lambda item: item[0])[1]


def _objection(error: MissingDeviceError) -> Objection:
    if isinstance(error, ModuleRefusedError):
        return error.objection
    # A device of another package may say everything in one text of its own.
    return Objection(reason=str(error), remedy=_REMEDY)


def _explained(refusals: Sequence[tuple[str, Objection]]) -> str:
    """Tell each reason once, with the targets that it holds for, and then what to do."""
    reasons: dict[str, list[str]] = {}
    for target, objection in refusals:
        reasons.setdefault(objection.reason, []).append(target)
    told = "; ".join(f"{', '.join(targets)}: {reason}" for reason, targets in reasons.items())
    remedies = dict.fromkeys(objection.remedy for _, objection in refusals)
    return f"({told}): {', or '.join(remedies)}"
