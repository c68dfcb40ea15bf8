"""One trial of a study: what was tried, what was predicted and estimated, what came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..controllers import Outcome
from ..space.architecture import Architecture
from .typed import read_as, read_fields

__all__ = ["Finding", "Trial"]

_VERSION = 1
_CHANCE = 3.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of an architecture without training it.

    ``latency_ms``: predicted, with the interval that holds it at 90 %; ``memory_bytes``: estimated
    peak, and ``memory_interval``, which holds it as far as the calibration tells, None where
    nothing did; ``accuracy``: with inherited weights, and its interval, None where it was not
    worth the while; ``outside``: why the prediction is not to be relied on, if it is not.
    """

    latency_ms: float
    latency_interval: tuple[float, float]
    memory_bytes: int
    memory_interval: tuple[int, int] | None = None
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    accuracy_kind: str = ""
    outside: str = ""

    @property
    def latency_least(self) -> float:
        """The least that the latency may be. Outside of what was measured an interval promises
        nothing, so that much is left to chance."""
        low = self.latency_interval[0]
        return low / _CHANCE if self.outside else low

    @property
    def memory_least(self) -> int:
        """The least that the peak may be."""
        return self.memory_bytes if self.memory_interval is None else self.memory_interval[0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}

    @classmethod
    def from_json(cls, value: object) -> Finding:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return read_as(cls, value, "a finding")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """``values``: the controller's choices. ``finding`` is None where the architecture could not
    be evaluated at all, for the outcome's reason. ``seconds`` that the trial took, of which
    learning from the last one, choosing and claiming took ``overhead``; ``same_as``: an earlier
    trial of the same architecture, whose finding this is.
    """

    number: int
    values: Mapping[str, Any]
    architecture: Architecture
    finding: Finding | None
    outcome: Outcome
    seconds: float
    overhead: float
    same_as: int | None = None
    worker: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            **vars(self),
            "values": dict(self.values),
            "architecture": self.architecture.to_json(),
            "finding": None if self.finding is None else self.finding.to_json(),
            "outcome": self.outcome.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Trial:
        """The inverse of `to_json`; raises `InputError` where it is none."""
        return cls(**read_fields(cls, value, "a trial", version=_VERSION))
