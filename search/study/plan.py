"""What decides a study: equal plans give the same study, wherever and by whom it is run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ...compiler.compression import fields
from ...errors import InputError
from ..controllers import CONTROLLERS
from ..space.space import ArchitectureSpace
from ..training.options import TrainingOptions
from .specification import Specification

__all__ = ["StudyPlan"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """``model`` and ``data``: digests of the teacher's or model's files and of the rows trained
    on. ``devices`` are of one kind: what is measured on one holds for all. ``finalists``: how many
    are trained in full. ``predictor``: the digest of the predictor's file, if one was given.
    """

    model: str
    data: str
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

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("seed", 0), ("finalists", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"{name} must be a whole number from {least} on, not {value!r}.")
        if self.controller not in CONTROLLERS:
            listed = ", ".join(CONTROLLERS)
            raise InputError(f"There is no controller {self.controller!r}: there are {listed}.")
        if not self.devices or len(set(self.devices)) != len(self.devices):
            raise InputError("devices must name at least one, each once.")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ where the plans do."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: StudyPlan) -> list[str]:
        """The names of the fields that differ."""
        ours, theirs = self.to_json(), other.to_json()
        return [name for name in ours if ours[name] != theirs[name]]

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
        for name in ("model", "data", "target"):
            found[name] = fields.text(found[name], name)
        found["devices"] = fields.items(found["devices"], "devices", fields.text)
        found["space"] = ArchitectureSpace.from_json(found["space"])
        found["specification"] = Specification.from_json(found["specification"])
        found["options"] = TrainingOptions.from_json(found["options"], "options")
        return cls(**found)
