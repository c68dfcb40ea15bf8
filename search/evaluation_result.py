"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import InputError

__all__ = ["Evaluation"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's metrics on a split.

    ``value`` is that of ``metric``, the primary one, with its 95 % ``interval`` by resampling
    the ``n`` rows (for plain text: windows, and ``n`` counts tokens). Accuracies, correlations
    and F1 are times 100; perplexities are as they are, lower is better. ``backend`` is
    ``pytorch`` or ``bundle``; ``emulated`` says that ``seconds``, of all of it without loading,
    are no time of real silicon. ``truncated`` texts were longer than ``seq_len`` tokens and cut.
    """

    metric: str
    value: float
    n: int
    interval: tuple[float, float]
    metrics: Mapping[str, float]
    seconds: float
    task: str
    model: str
    data: str
    split: str
    backend: str
    device: str
    target: str | None = None
    precision: str
    seq_len: int
    truncated: int
    emulated: bool = False
    version: int = field(default=_VERSION, init=False)

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values; ``from_json`` gives back an equal one."""
        return {**asdict(self), "interval": list(self.interval), "metrics": dict(self.metrics)}

    @classmethod
    def from_json(cls, value: Any) -> Evaluation:
        """Build from JSON values; InputError where they are not those of an evaluation."""
        known = {one.name for one in fields(cls)}
        if not isinstance(value, Mapping) or set(value) != known:
            raise InputError(f"An evaluation has the fields {', '.join(sorted(known))}.")
        if value["version"] != _VERSION:
            raise InputError(
                f"The evaluation has version {value['version']!r}; this canao reads {_VERSION}."
            )
        given = {name: item for name, item in value.items() if name != "version"}
        return cls(**{**given, "interval": tuple(value["interval"])})
