"""What a study knows of its device before the first trial: a few models measured there.

They tell how long the reference workload takes, how much memory a process needs beside the
weights, and, where the predictor was learnt on another device or no longer holds on this one, how
they differ. Then more are measured: those that would tell most of what may differ. A device that
nobody has measured yet gets as many as a predictor needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..predictor.active import choose_next
from ..predictor.predictor import LEAST_RECORDS, LatencyPredictor
from ..predictor.recordings import likeness, select, shipped
from ..predictor.records import Record, Setting
from ..predictor.transfer import LEAST_SAMPLES
from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace
from .pool import DevicePool
from .samples import Measure, Sample, Samples
from .spread import drawn_from, spread

__all__ = ["Calibration", "calibrate", "holds"]

_VERSION = 2
_KNOWN = 3
_OTHER = 12
_NEW = LEAST_RECORDS + 4
# Some may be disturbed, and then teach nothing.
_MOST = 2 * LEAST_RECORDS
_FEW_PEAKS = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """``reference_ms``: of the reference workload on the device; ``memory_base``: bytes that a
    process takes beside the weights; ``memory_margin``: by how many bytes a peak may be off."""

    predictor: LatencyPredictor
    reference_ms: float
    memory_base: int
    memory_margin: int
    records: tuple[Record, ...]

    @property
    def devices(self) -> dict[str, str]:
        """The fingerprint of each device that was measured, by name."""
        return {one.setting.device: one.setting.fingerprint for one in self.records}

    def memory(self, architecture: Architecture) -> int:
        """The peak, in bytes, that a process with such a model is expected to have."""
        return architecture.costs().bytes + self.memory_base

    def check(self, here: Mapping[str, str]) -> None:
        """Raise `InputError` where a device that is ``here`` (fingerprints by name) is another
        than the one of its name that was measured."""
        for name, fingerprint in self.devices.items():
            if here.get(name, fingerprint) != fingerprint:
                raise InputError(
                    f"The study was calibrated on another {name} ({fingerprint}) than the one "
                    f"here ({here[name]}): go on where that is, or name another directory."
                )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            "predictor": self.predictor.to_json(),
            "reference_ms": self.reference_ms,
            "memory_base": self.memory_base,
            "memory_margin": self.memory_margin,
            "records": [record.to_json() for record in self.records],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        if value.get("version") != _VERSION:
            raise InputError(f"The study's calibration must have version {_VERSION}.")
        try:
            return cls(
                predictor=LatencyPredictor.from_json(value["predictor"]),
                reference_ms=float(value["reference_ms"]),
                memory_base=int(value["memory_base"]),
                memory_margin=int(value["memory_margin"]),
                records=tuple(map(Record.from_json, value["records"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The study's calibration is damaged: {error}.") from error


def calibrate(
    space: ArchitectureSpace,
    folder: Path,
    measure: Measure,
    pool: DevicePool[Sample],
    *,
    target: str,
    here: Mapping[str, str],
    seed: int,
    predictor: LatencyPredictor | None,
    tell: Callable[[str], None],
) -> Calibration:
    """Measure architectures of ``space`` and make the predictor ready.

    ``here``: the fingerprint of each device of the pool, by name. ``predictor``: one to use or
    adapt; None: what ships with canao. Bundles and measurements are kept in ``folder``. Raises
    `InputError` where the device and the predictor do not go together, or the space is too small
    to learn from, `DeviceError` where the device is lost.
    """
    samples = Samples(folder=folder, measure=measure, pool=pool, target=target, here=here)
    drawn = drawn_from(space, target, seed)
    asked: list[Architecture] = []
    found: list[Sample] = []

    def take(chosen: Sequence[Architecture]) -> list[Record]:
        for number, one in enumerate(chosen, 1):
            tell(f"calibrating: model {number} of {len(chosen)}")
            asked.append(one)
            found.append(samples.of(one))
        # Devices of a pool are of one kind: what one tells holds for all.
        setting = found[0][0].setting
        return [replace(record, setting=setting) for record, _ in found]

    def left() -> list[Architecture]:
        return [one for one in drawn if one not in asked]

    records = take(spread(drawn, _KNOWN, seed))
    setting = records[0].setting
    marks: dict[str, Any] = {"emulated": setting.emulated, "protocol": setting.protocol}
    source = predictor or _shipped(setting)
    if source is None:
        _check_size(drawn, LEAST_RECORDS, setting)
        wanted = spread(left(), _MOST, seed)
        records = take(wanted[: _NEW - _KNOWN])
        for one in wanted[_NEW - _KNOWN :]:
            if _steady(records, marks) >= LEAST_RECORDS:
                break
            records = take([one])
        made = LatencyPredictor.fit(records, **marks, seed=seed)
    elif source.setting == setting and holds(source, records):
        made = source
    else:
        _check_size(drawn, LEAST_SAMPLES, setting)
        known = [record.architecture for record in records]
        count = min(_OTHER, len(drawn)) - _KNOWN
        records = take(choose_next(source, left(), count, measured=known, to=setting, seed=seed))
        made = source.adapt(records, **marks, changed=True)
    base, margin = _memory(found)
    return Calibration(
        predictor=made,
        reference_ms=statistics.median(one.median_ms / one.relative for one in records),
        memory_base=base,
        memory_margin=margin,
        records=tuple(record for record, _ in found),
    )


def holds(predictor: LatencyPredictor, records: Sequence[Record]) -> bool:
    """Whether at most a third of what was measured is beyond its interval of 90 %.

    More of three are by chance in 3 of 100 cases; else the compiler or the machine is not what it
    was when the predictor learned.
    """
    found = predictor.predict([record.architecture for record in records])
    pairs = zip(found, records, strict=True)
    beyond = sum(not one.low <= record.relative <= one.high for one, record in pairs)
    return 3 * beyond <= len(records)


def _check_size(drawn: Sequence[Architecture], least: int, setting: Setting) -> None:
    if len(drawn) < least:
        raise InputError(
            f"The space has {len(drawn)} architectures, and {least} must be measured to predict "
            f"latencies on {setting}: give a larger --space, or a --predictor of that device."
        )


def _steady(records: Sequence[Record], marks: Mapping[str, Any]) -> int:
    """How many a predictor may learn from."""
    try:
        return len(select(records, **marks))
    except InputError:
        return 0


def _memory(found: Sequence[Sample]) -> tuple[int, int]:
    """(bytes that a process takes beside its weights, how far from that one may be): the median,
    and twice the largest distance from it."""
    beside = [p - record.architecture.costs().bytes for record, p in found if p is not None]
    base = max(0, round(statistics.median(beside))) if beside else 0
    if len(beside) < _FEW_PEAKS:
        return base, base  # they tell no distance: the weights alone are sure
    return base, round(2 * max(abs(one - base) for one in beside))


def _shipped(setting: Setting) -> LatencyPredictor | None:
    """A predictor of what ships with canao: of this very setting if it can be, else of the CPU
    that is most like its own."""
    try:
        records = shipped()
    except InputError:
        return None
    groups: dict[Setting, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting, []).append(record)
    usable = [
        (
            (
                known == setting,
                known.target == setting.target,
                likeness(of, setting.cpu_features),
                len(of),
            ),
            of,
        )
        for known, of in groups.items()
        if (known.emulated, known.protocol) == (setting.emulated, setting.protocol)
        and len({record.architecture.digest for record in of}) >= LEAST_RECORDS
    ]
    if not usable:
        return None
    _, best = max(usable, key=lambda one: one[0])
    return LatencyPredictor.fit(best, emulated=setting.emulated, protocol=setting.protocol)
