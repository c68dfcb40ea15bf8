"""What decides a study: equal plans give the same study, wherever and by whom it is run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ...compiler.compression import fields
from ...errors import InputError
from ...runtime_harness.protocol import PROTOCOL
from ..controllers import CONTROLLERS
from ..space.space import ArchitectureSpace
from ..training.options import TrainingOptions
from .specification import Specification

__all__ = ["StudyPlan"]

_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """``model``, ``data`` and ``dev``: digests of the teacher's or model's files, of the rows
    trained on and of those that ``metric`` is read on. ``devices`` are of one kind: what is
    measured on one holds for all; which of them a machine has decides nothing, their kind (what
    stands before a colon) does. ``finalists``: how many are trained in full. ``predictor``: the
    digest of the predictor's file, if one was given. ``protocol``: the version of measuring.
    """

    model: str
    data: str
    dev: str
    metric: str
    devices: tuple[str, ...]
    target: str
    threads: int
    space: ArchitectureSpace
    specification: Specification
    controller: str
    seed: int
    finalists: int
    options: TrainingOptions = field(default_factory=TrainingOptions)
    predictor: str | None = None
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("seed", 0), ("finalists", 1), ("protocol", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"{name} must be a whole number from {least} on, not {value!r}.")
        if self.controller not in CONTROLLERS:
            listed = ", ".join(CONTROLLERS)
            raise InputError(f"There is no controller {self.controller!r}: there are {listed}.")
        if not self.devices or len(set(self.devices)) != len(self.devices):
            raise InputError("devices must name at least one, each once.")
        kinds = sorted({name.partition(":")[0] for name in self.devices})
        if len(kinds) > 1:
            raise InputError(f"devices must be of one kind, not {', '.join(kinds)}.")

    @property
    def kind(self) -> str:
        """What the devices are: ``local``, ``adb``, ..."""
        return self.devices[0].partition(":")[0]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ where the plans do."""
        text = json.dumps(self._deciding(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: StudyPlan) -> list[str]:
        """The names of what differs and decides."""
        ours, theirs = self._deciding(), other._deciding()
        return [name for name in ours if ours[name] != theirs[name]]

    def _deciding(self) -> dict[str, Any]:
        found = self.to_json()
        del found["devices"]
        return {**found, "kind of device": self.kind}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            **vars(self),
            "devices": list(self.devices),
            "space": self.space.to_json(),
            "specification": self.specification.to_json(),
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> StudyPlan:
        """The inverse of `to_json`; raises `InputError` naming the field that is wrong."""
        names = ("version", *cls.__dataclass_fields__)
        found = dict(fields.table(value, "The plan", names, of="a study's plan"))
        if found.pop("version", None) != _VERSION:
            raise InputError(f"version of the plan must be {_VERSION}.")
        missing = [name for name in cls.__dataclass_fields__ if name not in found]
        if missing:
            raise InputError(f"{missing[0]} is missing from the plan.")
        for name in ("model", "data", "dev", "metric", "target", "controller"):
            found[name] = fields.text(found[name], name)
        if found["predictor"] is not None:
            found["predictor"] = fields.text(found["predictor"], "predictor")
        found["devices"] = fields.items(found["devices"], "devices", fields.text)
        found["space"] = ArchitectureSpace.from_json(found["space"])
        found["specification"] = Specification.from_json(found["specification"])
        found["options"] = TrainingOptions.from_json(found["options"], "options")
        return cls(**found)
