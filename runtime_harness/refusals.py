"""The two ways in which a device refuses a module: it is not here, or the module is not for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import MissingDeviceError

if TYPE_CHECKING:
    from ..targets import Target
    from .bundle import ModuleEntry

__all__ = ["Absence", "DeviceAbsentError", "ModuleRefusedError", "Needs", "Objection"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a module, or every module of a target, asks of the device that runs it."""

    target: str
    kind: str
    arch: str
    features: tuple[str, ...]

    @classmethod
    def of_module(cls, module: ModuleEntry) -> Needs:
        """Return what a bundle says that a module needs."""
        return cls(
            target=module.target, kind=module.kind, arch=module.arch, features=module.features
        )

    @classmethod
    def of_target(cls, target: Target) -> Needs:
        """Return what any module needs that is compiled for ``target``."""
        return cls(
            target=target.name, kind=target.kind, arch=target.arch, features=target.features
        )


@dataclass(frozen=True, kw_only=True)
class Absence:
    """What a device lacks to be here, and how to get it: a sentence each."""

    missing: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Objection:
    """Why a device that is here does not run a module.

    ``reason`` goes on where a sentence says "the module is"; it names neither the module nor
    its target, so that one reason may stand for several. ``remedy`` says what to do.
    """

    reason: str
    remedy: str


class DeviceAbsentError(MissingDeviceError):
    """The device is not here, so it runs no module at all."""

    def __init__(self, device: str, absence: Absence) -> None:
        super().__init__(
            f"{device} is not available: {_clause(absence.missing)}; {_clause(absence.remedy)}"
        )


class ModuleRefusedError(MissingDeviceError):
    """The device is here, and the module is not for it."""

    def __init__(self, module: str, objection: Objection) -> None:
        super().__init__(f"{module} is {objection.reason}: {objection.remedy}")
        self.objection = objection


def _clause(sentence: str) -> str:
    """A sentence as a part of one: "The driver is missing." becomes "the driver is missing"."""
    text = sentence.rstrip(".")
    # An acronym or a name with more capitals stays as it is.
    return text[:1].lower() + text[1:] if text[1:2] in " " or text[1:2].islower() else text
