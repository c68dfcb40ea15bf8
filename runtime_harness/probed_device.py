"""A device that is looked for on this machine: what is found is told, and what does not fit."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..errors import MissingDeviceError
from ..targets import get, names
from .refusals import Absence, DeviceAbsentError, ModuleRefusedError, Needs, Objection
from .tools import tool_directory

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .device import DeviceInfo

__all__ = ["ProbedDevice", "runtime_absence"]


class ProbedDevice(ABC):
    """Base of a device that may be missing, and that runs the modules of some targets only.

    A class sets ``name`` and says what is missing, what is there and what it objects to;
    ``info`` and ``check`` follow from that, so that they cannot contradict each other.
    """

    name: str

    @abstractmethod
    def absence(self) -> Absence | None:
        """Return what is missing, or None if the device is here."""

    @abstractmethod
    def about(self) -> DeviceInfo:
        """Return what is known of the device, as far as it is here; ``targets`` are left out."""

    @abstractmethod
    def objection(self, needs: Needs) -> Objection | None:
        """Return why the device, which is here, does not run such modules, or None if it does."""

    def info(self) -> DeviceInfo:
        """Return what is known of the device; never raises because something is missing."""
        info, absence = self.about(), self.absence()
        if absence is not None:
            return dataclasses.replace(
                info, available=False, missing=absence.missing, remedy=absence.remedy
            )
        fitting = (name for name in names() if self.objection(Needs.of_target(get(name))) is None)
        return dataclasses.replace(info, targets=tuple(fitting))

    def check(self, bundle: Bundle, module: ModuleEntry) -> None:
        """Raise MissingDeviceError, naming what is lacking, if the module may not run here."""
        absence = self.absence()
        if absence is not None:
            raise DeviceAbsentError(self.name, absence)
        objection = self.objection(Needs.of_module(module))
        if objection is not None:
            raise ModuleRefusedError(f"{module.file} of {bundle.path}", objection)


def runtime_absence() -> Absence | None:
    """Return what to install if IREE's runtime, with its tools, is not here."""
    try:
        tool_directory()
    except MissingDeviceError:
        return Absence(
            missing="IREE's runtime is not installed.",
            remedy="Install it: pip install iree-base-runtime.",
        )
    return None
