"""What was measured of a model on a device, as a study keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .typed import read_as

if TYPE_CHECKING:
    from ...runtime_harness.measurement import Measurement

__all__ = ["Measured", "worst"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement. ``latency_ms``: the median, ``interval`` holds it at 95 %; ``relative``:
    over the reference workload; ``stable``, ``reason``: the harness's verdict."""

    device: str
    target: str
    latency_ms: float
    interval: tuple[float, float]
    p90_ms: float
    relative: float | None
    peak_bytes: int | None
    emulated: bool
    stable: bool
    reason: str
    fingerprint: str

    @classmethod
    def of(cls, found: Measurement) -> Measured:
        """From the harness's measurement."""
        return cls(
            device=found.device,
            target=found.target,
            latency_ms=found.median_ms,
            interval=found.interval,
            p90_ms=found.p90_ms,
            relative=found.relative,
            peak_bytes=found.peak_bytes,
            emulated=found.emulated,
            stable=found.stable,
            reason=found.reason,
            fingerprint=found.fingerprint,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, value: object) -> Measured:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return read_as(cls, value, "a measurement")


def worst(measured: list[Measured]) -> Measured:
    """Of several measurements of a model the one whose upper bound is the highest."""
    return max(measured, key=lambda one: one.interval[1])
