"""A model that came so far that it was compiled: what is known of it, and where it is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime_harness.bundle.atomic import replace_file
from ..space.architecture import Architecture
from .measured import Measured, worst
from .typed import damaged, read_as, read_fields, read_file

__all__ = ["Finalist", "Judged", "Trained"]

_VERSION = 2
_FILE = "finalist.json"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model: ``metric`` on the development split in PyTorch, with its 95 % interval;
    ``held``: on the rows held out of training, by which finalists are chosen."""

    directory: str
    name: str
    metric: float
    interval: tuple[float, float]
    held: float
    params: int
    flops: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, value: object) -> Trained:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return read_as(cls, value, "a trained model")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """``metric`` on the development split, with its 95 % interval, of what ran on ``device``."""

    device: str
    metric: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, value: object) -> Judged:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return read_as(cls, value, "a model's metric on a device")


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """``trial``: its number in the search, where ``estimate`` was its accuracy and
    ``predicted_ms`` its latency. ``screened``: measured with inherited weights. ``adapted``: its
    accuracy after a few steps of training, where it was asked for. ``trained``, then
    ``bundle`` with the architecture ``compiled``, ``measured`` (more than once) and ``judged``
    (by the bundle on the device; None on an emulated one): after full training. ``refused``: why
    it is, empty where it is not.
    """

    trial: int
    architecture: Architecture
    estimate: float
    predicted_ms: float
    predicted_interval: tuple[float, float]
    screened: Measured | None = None
    adapted: float | None = None
    trained: Trained | None = None
    bundle: str | None = None
    compiled: Architecture | None = None
    measured: tuple[Measured, ...] = ()
    judged: Judged | None = None
    refused: tuple[str, ...] = ()

    @property
    def last(self) -> Measured | None:
        """What was measured last: the worst of the final ones, else the screening."""
        return worst(list(self.measured)) if self.measured else self.screened

    @property
    def promise(self) -> float:
        """The best accuracy known of it before it was trained: no step is a checkpoint too."""
        return self.estimate if self.adapted is None else max(self.estimate, self.adapted)

    @property
    def metric(self) -> float | None:
        """On the development split: on the device, else in PyTorch; None before it was trained."""
        if self.judged is not None:
            return self.judged.metric
        return None if self.trained is None else self.trained.metric

    @property
    def passed(self) -> bool:
        """Whether it went through everything."""
        told = bool(self.measured) and (self.judged is not None or self.emulated)
        return told and not self.refused

    @property
    def emulated(self) -> bool:
        """Whether an emulator measured it."""
        return any(one.emulated for one in self.measured)

    @property
    def held(self) -> float:
        """Its metric on the rows held out, after training; before that, the estimate."""
        return self.estimate if self.trained is None else self.trained.held

    def replace(self, **changes: Any) -> Finalist:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def save(self, folder: Path) -> Finalist:
        """Keep it in its directory."""
        replace_file(folder / _FILE, json.dumps(self.to_json(), indent=1).encode())
        return self

    @classmethod
    def read(cls, folder: Path) -> Finalist | None:
        """What was kept there; None where nothing was."""
        file = folder / _FILE
        with damaged(file, "delete it: what it held is done again"):
            found = read_file(file)
            return None if found is None else cls.from_json(found)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            **vars(self),
            "architecture": self.architecture.to_json(),
            "predicted_interval": list(self.predicted_interval),
            "screened": None if self.screened is None else self.screened.to_json(),
            "trained": None if self.trained is None else self.trained.to_json(),
            "compiled": None if self.compiled is None else self.compiled.to_json(),
            "measured": [one.to_json() for one in self.measured],
            "judged": None if self.judged is None else self.judged.to_json(),
            "refused": list(self.refused),
        }

    @classmethod
    def from_json(cls, value: object) -> Finalist:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return cls(**read_fields(cls, value, "a finalist", version=_VERSION))
