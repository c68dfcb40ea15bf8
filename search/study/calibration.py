"""What a study knows of its device before the first trial: a few models measured there.

They tell how long the reference workload takes, how much memory a process needs beside the
weights, and, where the predictor was learnt on another device or no longer holds on this one, how
they differ. A device that nobody has measured yet gets as many as a predictor needs.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CanaoError, InputError, NumericsError
from ...runtime_harness.bundle.atomic import replace_file
from ..predictor.predictor import LEAST_RECORDS, LatencyPredictor
from ..predictor.recordings import shipped
from ..predictor.records import Record, Setting
from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace
from .pool import DevicePool
from .problem import Problem

__all__ = ["Calibration", "calibrate", "fastest"]

_VERSION = 1
_KNOWN = 3
_OTHER = 12
_NEW = LEAST_RECORDS + 4
_SEEDS = 3
# Of drawn weights only the speed counts.
_COSINE = 0.9
_KINDS = {
    "attention.self": "qkv",
    "attention.output.dense": "output",
    "intermediate.dense": "up",
    "output.dense": "down",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)$")

Sample = tuple[Record, int | None]
"""A measurement, and the peak of memory in bytes, None where the device cannot tell."""
Measure = Callable[[Path, str, Architecture], Sample]
"""Measures a bundle of an architecture on the device of that name."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """``reference_ms``: of the reference workload on the device; ``memory_base``: bytes that a
    process takes beside the weights."""

    predictor: LatencyPredictor
    reference_ms: float
    memory_base: int
    records: tuple[Record, ...]

    def memory(self, architecture: Architecture) -> int:
        """The peak, in bytes, that a process with such a model is expected to have."""
        return architecture.costs().bytes + self.memory_base

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            "predictor": self.predictor.to_json(),
            "reference_ms": self.reference_ms,
            "memory_base": self.memory_base,
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
    seed: int,
    predictor: LatencyPredictor | None,
    tell: Callable[[str], None],
) -> Calibration:
    """Measure drawn architectures of ``space`` and make the predictor ready.

    ``predictor``: one to use or adapt; None:
    what ships with canao. Bundles and measurements are kept in ``folder``. Raises `InputError`
    where the device and the predictor do not go together, `DeviceError` where it is lost.
    """
    drawn = _drawn(space, seed)
    found: list[Sample] = []

    def more(count: int) -> None:
        for number in range(len(found), count):
            tell(f"calibrating: model {number + 1} of {count}")
            found.append(_measured(drawn[number], folder, measure, pool, target))

    more(_KNOWN)
    setting = found[0][0].setting
    source = predictor or _shipped(setting)
    if source is None:
        more(_NEW)
        made = LatencyPredictor.fit([record for record, _ in found], seed=seed)
    elif source.setting == setting and _holds(source, [record for record, _ in found]):
        made = source
    else:
        more(_OTHER)
        made = source.adapt([record for record, _ in found], changed=True)
    records = [record for record, _ in found]
    beside = [
        peak - record.architecture.costs().bytes for record, peak in found if peak is not None
    ]
    return Calibration(
        predictor=made,
        reference_ms=statistics.median(one.median_ms / one.relative for one in records),
        memory_base=max(0, round(statistics.median(beside))) if beside else 0,
        records=tuple(records),
    )


def fastest(space: ArchitectureSpace, problem: Problem, seed: int) -> tuple[float, int]:
    """(the lowest latency in milliseconds, the least memory in bytes) that can be hoped for in a
    space: of its extremes and of some hundred drawn ones."""
    rng = np.random.default_rng((seed, 1))
    looked = [*_extremes(space), *(space.sample(rng) for _ in range(128))]
    found = problem.predict(looked)
    return (
        min(one.latency_interval[0] for one in found),
        min(one.memory_bytes for one in found),
    )


def _extremes(space: ArchitectureSpace) -> list[Architecture]:
    """The smallest sizes, with each precision and density."""
    found = []
    decisions = space.decisions()
    for what in ("precision", "density"):
        places = max(len(d.choices) for d in decisions if what in d.name)
        for place in range(places):
            values = {}
            for decision in decisions:
                choices = decision.choices
                if what in decision.name:
                    values[decision.name] = choices[min(place, len(choices) - 1)]
                elif all(isinstance(choice, int | float) for choice in choices):
                    values[decision.name] = min(choices)  # type: ignore[type-var]
                else:
                    values[decision.name] = choices[-1]
            found.append(space.build(values))
    return found


def _holds(predictor: LatencyPredictor, records: Sequence[Record]) -> bool:
    """Whether at most a third of what was measured is beyond its interval of 90 %.

    More of three are by chance in 3 of 100 cases; else the compiler or the machine is not what it
    was when the predictor learned.
    """
    found = predictor.predict([record.architecture for record in records])
    pairs = zip(found, records, strict=True)
    beyond = sum(not one.low <= record.relative <= one.high for one, record in pairs)
    return 3 * beyond <= len(records)


def _drawn(space: ArchitectureSpace, seed: int) -> list[Architecture]:
    """Different architectures whose work spreads: of many drawn ones, evenly by FLOPs."""
    rng = np.random.default_rng((seed, 2))
    drawn = {one.digest: one for one in (space.sample(rng) for _ in range(8 * _NEW))}
    ordered = sorted(drawn.values(), key=lambda one: one.costs().flops)
    count = min(_NEW, len(ordered))
    chosen = [ordered[place * len(ordered) // count] for place in range(count)]
    # The first ones too are to be far apart.
    order = np.random.default_rng(seed).permutation(len(chosen))
    found = [chosen[place] for place in order]
    while len(found) < _NEW:  # a space of few architectures: measured more than once
        found += found[: _NEW - len(found)]
    return found


def _shipped(setting: Setting) -> LatencyPredictor | None:
    """A predictor of what ships with canao: of this very setting if it can be."""
    try:
        records = shipped()
    except InputError:
        return None
    groups: dict[Setting, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting, []).append(record)
    usable = [
        (known == setting, known.target == setting.target, len(of), of)
        for known, of in groups.items()
        if (known.emulated, known.protocol) == (setting.emulated, setting.protocol)
        and len({record.architecture.digest for record in of}) >= LEAST_RECORDS
    ]
    if not usable:
        return None
    return LatencyPredictor.fit(max(usable, key=lambda one: one[:3])[3])


def _measured(
    architecture: Architecture,
    folder: Path,
    measure: Measure,
    pool: DevicePool[Sample],
    target: str,
) -> Sample:
    kept = folder / f"{architecture.digest}.json"
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return Record.from_json(found["record"]), found["peak_bytes"]
    except (OSError, ValueError, KeyError, TypeError, InputError):
        pass  # not there, or from another canao
    folder.mkdir(parents=True, exist_ok=True)
    bundle, made = _compiled(architecture, folder, target)
    (result,) = pool.run([lambda device: measure(bundle, device, made)])
    if isinstance(result, CanaoError):
        raise result
    record, peak = result
    text = json.dumps({"record": record.to_json(), "peak_bytes": peak})
    replace_file(kept, text.encode())
    for left in (bundle, bundle.with_name(f"{bundle.name}.numerics.json")):
        left.unlink(missing_ok=True)
    return record, peak


def _compiled(architecture: Architecture, folder: Path, target: str) -> tuple[Path, Architecture]:
    """A bundle with drawn weights, and the architecture in it: layers may be kept wider."""
    from ...compiler.api import compile_model
    from ..space.models import fresh_model

    recipe = architecture.recipe()
    int8 = any(rule.precision == "int8" for rule in recipe.precision)
    bundle = folder / f"{architecture.digest}.canao"
    for seed in range(_SEEDS):
        bundle.unlink(missing_ok=True)
        try:
            report = compile_model(
                fresh_model(architecture, seed),
                target=target,
                seq_len=architecture.seq_len,
                recipe=recipe,
                output=bundle,
                name=f"bert-{architecture.digest}",
                cosine=_COSINE if int8 else None,
            )
        except NumericsError:
            if seed == _SEEDS - 1:
                raise
            continue  # of other weights the outputs may not nearly cancel
        wider = (report.quantization or {}).get("wider", ())
        return bundle, _widened(architecture, wider)
    raise AssertionError("unreachable")


def _widened(architecture: Architecture, wider: Sequence[str]) -> Architecture:
    layers = list(architecture.layers)
    for name in wider:
        match = _LAYER.search(name)
        kind = next((k for path, k in _KINDS.items() if match and match[2].startswith(path)), None)
        if match is None or kind is None:
            continue
        number = int(match[1])
        form = replace(layers[number].form(kind), precision="bf16")
        changed: dict[str, Any] = {kind: form}
        layers[number] = replace(layers[number], **changed)
    return replace(architecture, layers=tuple(layers))
