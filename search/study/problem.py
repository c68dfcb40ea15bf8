"""What a trial is judged by: predicted latency, estimated memory, accuracy by shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...errors import InputError, NumericsError, UnsupportedError
from ..controllers import Outcome
from ..space.architecture import Architecture
from .specification import Specification
from .trial import Finding

__all__ = ["Estimator", "Evaluator", "MemoryModel", "Predictor", "Problem"]


class Evaluator(Protocol):
    """Judges architectures."""

    def evaluate(self, architecture: Architecture) -> tuple[Finding | None, Outcome]:
        """What is found of one, and what a controller is told of it."""


class Predictor(Protocol):
    """What is needed of a `LatencyPredictor`."""

    def predict(self, architectures: Sequence[Architecture]) -> Sequence[Any]:
        """For each: ``relative``, ``low``, ``high``, ``ms``, ``outside`` and ``reason``."""


class Estimator(Protocol):
    """What is needed of an `AccuracyEstimator`."""

    def evaluate(self, architecture: Architecture) -> Any:
        """``value``, ``interval`` and ``kind`` of its accuracy."""


class MemoryModel(Protocol):
    """Estimates peaks of memory."""

    def __call__(self, architecture: Architecture) -> int:
        """Bytes."""


class Problem:
    """Latency first, because it is known in milliseconds of work: what surely misses the
    specification is told to the controller without its accuracy.

    ``reference_ms``: how long the reference workload takes on the device, in which the
    predictor's numbers are told; ``memory_margin``: by how many bytes an estimate of ``memory``
    may be off.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        reference_ms: float,
        memory: MemoryModel,
        estimator: Estimator,
        specification: Specification,
        memory_margin: int = 0,
    ) -> None:
        self._predictor = predictor
        self._reference = reference_ms
        self._memory = memory
        self._margin = memory_margin
        self._estimator = estimator
        self._specification = specification

    def evaluate(self, architecture: Architecture) -> tuple[Finding | None, Outcome]:
        """See `Evaluator`. What canao cannot build or run is an outcome too, with its reason."""
        try:
            return self._evaluate(architecture)
        except (InputError, NumericsError, UnsupportedError) as error:
            return None, Outcome(accuracy=None, latency=None, violations=(1.0,), reason=str(error))

    def _evaluate(self, architecture: Architecture) -> tuple[Finding, Outcome]:
        finding = self.predict([architecture])[0]
        violations = self._specification.violations(finding.latency_ms, finding.memory_bytes)
        reason = self._surely(finding)
        if reason:
            return finding, Outcome(
                accuracy=None,
                latency=finding.latency_ms,
                memory=finding.memory_bytes,
                violations=violations,
                reason=reason,
            )
        found = self._estimator.evaluate(architecture)
        finding = Finding(
            **{
                **vars(finding),
                "accuracy": float(found.value),
                "accuracy_interval": tuple(map(float, found.interval)),
                "accuracy_kind": str(found.kind),
            }
        )
        return finding, Outcome(
            accuracy=finding.accuracy,
            latency=finding.latency_ms,
            memory=finding.memory_bytes,
            violations=violations,
        )

    def predict(self, architectures: Sequence[Architecture]) -> list[Finding]:
        """Latency and memory of each; no accuracy."""
        return [
            Finding(
                latency_ms=float(found.relative * self._reference),
                latency_interval=(
                    float(found.low * self._reference),
                    float(found.high * self._reference),
                ),
                memory_bytes=peak,
                memory_interval=(max(0, peak - self._margin), peak + self._margin),
                outside=str(found.reason) if found.outside else "",
            )
            for architecture, found in zip(
                architectures, self._predictor.predict(list(architectures)), strict=True
            )
            for peak in [self._memory(architecture)]
        ]

    def _surely(self, finding: Finding) -> str:
        """Why a finding misses the specification even if all goes well; empty if it may not."""
        limit, room = self._specification.latency_ms, self._specification.memory_bytes
        if limit is not None and finding.latency_least > limit:
            return (
                f"predicted at {finding.latency_ms:.3g} ms, and hardly below "
                f"{finding.latency_least:.3g} ms"
            )
        if room is not None and finding.memory_least > room:
            return (
                f"estimated to take {finding.memory_bytes / 1e6:.3g} MB, and hardly less than "
                f"{finding.memory_least / 1e6:.3g} MB"
            )
        return ""
