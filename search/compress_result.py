"""What compressing a model gave: before and after, and how it came about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .evaluation_result import Evaluation

__all__ = ["CompressionResult", "Difference", "ModelFacts"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model's costs and how good it is on the development split.

    ``params``: numbers stored, without blocks of zeros; ``flops``: 2 for each multiply-add of one
    text of the full length; ``bytes``: as stored in a bundle. ``metric`` is the value of
    ``metric_name`` (accuracies, F1 and correlations times 100) with its 95 % ``interval``.
    """

    params: int
    flops: int
    bytes: int
    metric: float
    metric_name: str
    interval: tuple[float, float]
    metrics: Mapping[str, float]
    n: int

    @classmethod
    def of(cls, costs: Any, evaluation: Evaluation) -> ModelFacts:
        """From ``model_costs`` and an evaluation."""
        return cls(
            params=costs.params,
            flops=costs.flops,
            bytes=costs.bytes,
            metric=evaluation.value,
            metric_name=evaluation.metric,
            interval=evaluation.interval,
            metrics=dict(evaluation.metrics),
            n=evaluation.n,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = dataclasses.asdict(self)
        return {**found, "interval": list(self.interval), "metrics": dict(self.metrics)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelFacts:
        """The inverse of `to_json`."""
        try:
            return cls(**{**value, "interval": tuple(value["interval"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"These are no facts of a model: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A model's metric less another's on the same rows, with its 95 % interval by resampling
    them for both alike."""

    value: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"value": self.value, "interval": list(self.interval)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Difference:
        """The inverse of `to_json`."""
        try:
            low, high = value["interval"]
            return cls(value=value["value"], interval=(low, high))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"This is no difference of two models: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class CompressionResult:
    """``before`` is the teacher, ``after`` the model in ``output``. ``dense``: for a block-sparse
    model, one without blocks of zeros that has about its FLOPs and was trained alike, if it was
    asked for; ``difference`` is that of ``after`` to it. ``teacher`` is the teacher's directory;
    ``training`` tells of all trainings.
    """

    before: ModelFacts
    after: ModelFacts
    dense: ModelFacts | None = None
    difference: Difference | None = None
    output: Path
    teacher: Path
    dense_output: Path | None = None
    data: str
    seq_len: int
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The keys of ``canao compress --json``."""
        return {
            "version": _VERSION,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "dense": None if self.dense is None else self.dense.to_json(),
            "difference": None if self.difference is None else self.difference.to_json(),
            "output": str(self.output),
            "teacher": str(self.teacher),
            "dense_output": None if self.dense_output is None else str(self.dense_output),
            "data": self.data,
            "seq_len": self.seq_len,
            "recipe": dict(self.recipe),
            "options": dict(self.options),
            "training": dict(self.training),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CompressionResult:
        """The inverse of `to_json`; raises `InputError` for another version."""
        if value.get("version") != _VERSION:
            raise InputError(f"The result has version {value.get('version')!r}, not {_VERSION}.")
        given = {name: item for name, item in value.items() if name != "version"}
        for name in ("before", "after", "dense"):
            if given[name] is not None:
                given[name] = ModelFacts.from_json(given[name])
        if given.get("difference") is not None:
            given["difference"] = Difference.from_json(given["difference"])
        for name in ("output", "teacher", "dense_output"):
            if given[name] is not None:
                given[name] = Path(given[name])
        return cls(**{**given, "warnings": tuple(given["warnings"])})
