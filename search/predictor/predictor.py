"""The latency predictor: measurements in, latencies of architectures nobody measured out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.compression.fields import shown
from ...errors import InputError
from ...runtime_harness.bundle.atomic import replace_file
from ...runtime_harness.bundle.fields import parse_json
from ...runtime_harness.protocol import PROTOCOL
from .conformal import reach
from .familiarity import Familiarity
from .fields import names, real, record
from .hybrid import Hybrid, fit_hybrid
from .measured import measured_workload
from .prediction import Prediction
from .recordings import select
from .records import Record, Setting
from .timed import timed_dispatches
from .traits import SIZES
from .transfer import Adapted, adapt
from .workload import SUMS, Workload, workload_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..space.architecture import Architecture

__all__ = ["LEAST_RECORDS", "LatencyPredictor"]

LEAST_RECORDS = 20
"""The fewest measurements of different architectures that a predictor is fitted on."""

_VERSION = 3
_KEYS = (
    "version", "setting", "reference_ms", "model", "familiarity", "reach", "seed", "trained_on",
    "adapted_from",
)  # fmt: skip
_NOISE = 0.02


@dataclass(frozen=True, eq=False, kw_only=True)
class LatencyPredictor:
    """Predicts the latencies of architectures in one setting, with intervals.

    ``reference_ms``: the reference workload's time on the device; ``reach``: how many times the
    expected error an interval reaches; ``trained_on``: digests of the architectures it learned
    from; ``adapted_from``: the setting of the predictor it was adapted from, if it was.
    """

    setting: Setting
    reference_ms: float
    model: Hybrid | Adapted
    familiarity: Familiarity
    reach: float
    seed: int
    trained_on: tuple[str, ...]
    adapted_from: Setting | None = None

    @classmethod
    def fit(
        cls,
        records: Sequence[Record],
        *,
        device: str | None = None,
        threads: int | None = None,
        target: str | None = None,
        emulated: bool = False,
        protocol: int = PROTOCOL,
        seed: int = 0,
    ) -> LatencyPredictor:
        """Learn from the records of one setting (chosen as by `select`); takes seconds.

        The same records and seed give the same predictor. Raises `InputError` where the records
        are of several settings, or of fewer than 20 architectures.
        """
        chosen = select(
            records,
            device=device,
            threads=threads,
            target=target,
            emulated=emulated,
            protocol=protocol,
        )
        setting = chosen[0].setting
        if len(chosen) < LEAST_RECORDS:
            raise InputError(
                f"{len(chosen)} architectures were measured on {setting}, and a predictor needs "
                f"{LEAST_RECORDS}: measure more of them, or adapt a predictor of another device."
            )
        workloads = workloads_of(chosen)
        relative, weights = observations(chosen)
        timed = [timed_dispatches(one) for one in chosen]
        model, errors = fit_hybrid(workloads, relative, weights, timed, seed=seed)
        familiarity = Familiarity.of(workloads, np.abs(errors))
        return cls(
            setting=setting,
            reference_ms=reference_ms(chosen),
            model=model,
            familiarity=familiarity,
            reach=reach(errors, familiarity.difficulty(workloads, own=True)),
            seed=seed,
            trained_on=tuple(one.architecture.digest for one in chosen),
        )

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """Predict each architecture's latency.

        Raises `UnsupportedError` where an architecture has no program on the setting's target.
        """
        if not architectures:
            return []
        workloads = [workload_of(one, *self.setting.place) for one in architectures]
        return self.predict_workloads(workloads)

    def predict_workloads(self, workloads: Sequence[Workload]) -> list[Prediction]:
        """Predict what is already described as workloads of the setting's target."""
        middle = self.model.logs(workloads)
        width = self.reach * self.familiarity.difficulty(workloads)
        found = []
        for one, log, half in zip(workloads, middle, width, strict=True):
            verdict = self.familiarity.judge(one, shares_of(self.model, one))
            half = min(half * (1 + verdict.excess), 10.0)
            relative = float(np.exp(log))
            found.append(
                Prediction(
                    relative=relative,
                    low=float(np.exp(log - half)),
                    high=float(np.exp(log + half)),
                    ms=relative * self.reference_ms,
                    outside=bool(verdict.reason),
                    reason=verdict.reason,
                )
            )
        return found

    def adapt(
        self,
        records: Sequence[Record],
        *,
        device: str | None = None,
        threads: int | None = None,
        target: str | None = None,
        emulated: bool = False,
        protocol: int = PROTOCOL,
        changed: bool = False,
    ) -> LatencyPredictor:
        """A predictor of another setting, or of this one since it ``changed``, from this one and a
        few records (`transfer.adapt`)."""
        chosen = select(
            records,
            device=device,
            threads=threads,
            target=target,
            emulated=emulated,
            protocol=protocol,
        )
        return adapt(self, chosen, changed=changed)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, LightGBM's trees as text inside; whole or not at all."""
        place = Path(path)
        if place.is_dir() or not place.absolute().parent.is_dir():
            raise InputError(f"The predictor {place} must be a file in a directory that is there.")
        text = json.dumps(self.to_json(), allow_nan=False, indent=1)
        replace_file(place, text.encode())
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyPredictor:
        """Read what `save` wrote. Raises `InputError` for anything else, whatever it is."""
        place = Path(path)
        try:
            data = place.read_bytes()
        except OSError as error:
            raise InputError(
                f"The predictor {place} cannot be read: {error.strerror or error}."
            ) from error
        try:
            return cls.from_json(parse_json(data, "it"))
        except InputError as error:
            reason = str(error).rstrip(".")
            raise InputError(f"The predictor {place} cannot be used: {reason}.") from error

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        source = self.adapted_from
        return {
            "version": _VERSION,
            "setting": self.setting.to_json(),
            "reference_ms": self.reference_ms,
            "model": self.model.to_json(),
            "familiarity": self.familiarity.to_json(),
            "reach": self.reach,
            "seed": self.seed,
            "trained_on": list(self.trained_on),
            "adapted_from": None if source is None else source.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> LatencyPredictor:
        """Read one; raises `InputError` naming the field that is wrong."""
        if isinstance(value, dict) and value.get("version") != _VERSION:
            raise InputError(f"it has version {shown(value.get('version'))}, not {_VERSION}")
        found = record(value, "a predictor", _KEYS)
        source = found["adapted_from"]
        if not isinstance(found["seed"], int) or isinstance(found["seed"], bool):
            raise InputError(f"seed must be a whole number, not {shown(found['seed'])}.")
        return cls(
            setting=_setting(found["setting"], "setting"),
            reference_ms=real(found["reference_ms"], "reference_ms", above=0),
            model=_model(found["model"], source is not None),
            familiarity=Familiarity.from_json(found["familiarity"], (*SIZES, *SUMS)),
            reach=real(found["reach"], "reach", above=0),
            seed=found["seed"],
            trained_on=names(found["trained_on"], "trained_on"),
            adapted_from=None if source is None else _setting(source, "adapted_from"),
        )


def shares_of(model: Hybrid | Adapted, workload: Workload) -> dict[str, float]:
    """The share of the predicted time that each group of dispatches takes."""
    groups = list(workload.terms)
    time = model.parts([workload], groups).sum(axis=(0, 2))
    total = float(time.sum()) or 1.0
    return {group: float(part) / total for group, part in zip(groups, time, strict=True)}


def workloads_of(records: Sequence[Record]) -> list[Workload]:
    """The workload of each record, for its own setting."""
    return [measured_workload(one) for one in records]


def observations(records: Sequence[Record]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(relative latencies [n], weights [n]): what was measured less surely weighs less."""
    relative = np.array([one.typical for one in records])
    spread = np.array([one.spread / (1 + len(one.repeat_relative)) for one in records])
    return relative, _NOISE**2 / (_NOISE**2 + spread**2)


def reference_ms(records: Sequence[Record]) -> float:
    """The reference workload's time on the device: the median of what each record implies."""
    return float(np.median([one.median_ms / one.relative for one in records]))


def _model(value: object, adapted: bool) -> Hybrid | Adapted:
    return Adapted.from_json(value) if adapted else Hybrid.from_json(value)


def _setting(value: object, field: str) -> Setting:
    if not isinstance(value, dict):
        raise InputError(f"{field} must be an object, not {shown(value)}.")
    return Setting.from_json(value)
