"""Two bundles measured in turns, in the same rounds: how much faster one is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .bootstrap import Estimate, ratio_of
from .contest import Entrant, hold
from .disturbance import Disturbance
from .selection import open_bundle
from .stability import Verdict

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device
    from .measurement import Measurement

__all__ = ["Compared", "compare"]

_UNCERTAINTY = 0.02


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two measurements from the same rounds, and the ratio of their times.

    ``ratio`` is the time of ``other`` over that of ``measurement``: above 1 the latter is
    faster. ``interval`` holds it at 95 %. ``stable`` is the verdict on the ratio (known to 2 %,
    and nothing else used the cores), in which a drift of the machine cancels out, and
    ``reason`` its grounds.
    """

    measurement: Measurement
    other: Measurement
    ratio: float
    interval: tuple[float, float]
    stable: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "ratio": self.ratio,
            "interval": list(self.interval),
            "stable": self.stable,
            "reason": self.reason,
            "measurement": self.measurement.to_json(),
            "other": self.other.to_json(),
        }


def compare(
    bundle: Bundle | str | os.PathLike[str],
    other: Bundle | str | os.PathLike[str],
    device: str | Device = "local",
    *,
    target: str | None = None,
    seq_len: int | None = None,
    threads: int = 1,
    cores: Sequence[int] | None = None,
    rounds: int | None = None,
    repetitions: int | None = None,
    warmup: int | None = None,
    reference: Bundle | str | os.PathLike[str] | None = None,
    dispatches: bool = False,
    timeout: float | None = None,
) -> Compared:
    """Measure two bundles as ``bench`` does, in turns with each other and with the reference.

    Both must take the same inputs, and have a module for the same target and length. Raises
    InputError if they do not, and otherwise as ``bench`` does.
    """
    from .devices import get

    place = get(device) if isinstance(device, str) else device
    entrants = _pair(open_bundle(bundle), open_bundle(other), place, target, seq_len)
    (first, second), timed = hold(
        entrants,
        place,
        threads=threads,
        cores=cores,
        rounds=rounds,
        repetitions=repetitions,
        warmup=warmup,
        reference=reference,
        dispatches=dispatches,
        timeout=timeout,
    )
    ours, theirs = timed.series[:2]
    found = ratio_of(theirs.rounds, ours.rounds)
    verdict = _judge(found, ours.disturbance + theirs.disturbance)
    return Compared(
        measurement=first,
        other=second,
        ratio=found.value,
        interval=found.interval,
        stable=verdict.stable,
        reason=verdict.reason,
    )


def _pair(
    bundle: Bundle, other: Bundle, device: Device, target: str | None, seq_len: int | None
) -> tuple[Entrant, Entrant]:
    first = Entrant.of(bundle, device, target=target, seq_len=seq_len)
    name, length = first.module.target, first.module.seq_len
    if name not in other.targets:
        raise InputError(
            f"{bundle.path} would run its module for {name!r}, and {other.path} has none (only "
            f"for {', '.join(other.targets)}): compile both for the same target"
        )
    if length not in other.seq_lens(name):
        listed = ", ".join(map(str, other.seq_lens(name)))
        raise InputError(
            f"{other.path} was not compiled for {length} tokens ({name}: {listed}): name a "
            "length that both have"
        )
    second = Entrant.of(other, device, target=name, seq_len=length)
    ours, theirs = bundle.manifest.inputs, other.manifest.inputs
    if ours != theirs or first.module.batch != second.module.batch:
        raise InputError(
            f"{bundle.path} and {other.path} do not take the same inputs "
            f"({_listed(first)}, and {_listed(second)}): compare bundles that do"
        )
    return first, second


def _listed(entrant: Entrant) -> str:
    specs = entrant.bundle.manifest.inputs
    inputs = (f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
    return f"{', '.join(inputs)}, batch {entrant.module.batch}"


def _judge(found: Estimate, disturbance: Disturbance) -> Verdict:
    """Judge a ratio: both sides may drift together, but other processes slow them unequally."""
    numbers = f"the ratio is known to {found.uncertainty:.1%}"
    faults = list(disturbance.faults())
    if found.fault:
        faults.append(found.fault)
    elif found.uncertainty > _UNCERTAINTY:
        faults.append(f"{numbers} only")
    if not disturbance.known:
        numbers += "; what else used the cores is not known"
    return Verdict(not faults, "; ".join(faults) or numbers)
