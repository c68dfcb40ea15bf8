"""A predictor of another device from a few measurements there.

Devices differ in how long the same work takes, and less in what work there is: each cost of the
source's physical model is scaled, and what other threads or a smaller cache cost is added
(`scaling`). What the source's trees learned is kept as far as it helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .conformal import reach
from .fields import array, names, real, record
from .hybrid import Hybrid
from .records import Record
from .scaling import ADDED, Scaled, Scaling
from .workload import TERMS, Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .predictor import LatencyPredictor

__all__ = ["LEAST_SAMPLES", "Adapted", "adapt", "origin_of"]

LEAST_SAMPLES = 5
"""The fewest measurements that a predictor is adapted by."""

_LAUNCHES, _HELD = TERMS.index("launches"), TERMS.index("held")


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapted:
    """The ``source`` with the costs of its ``groups`` ``scaled``."""

    source: Hybrid
    groups: tuple[str, ...]
    scaled: Scaled

    @property
    def kept(self) -> float:
        """How much of what the source's trees say counts, from 0 to 1."""
        return self.scaled.kept

    def logs(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """Logarithms of relative latencies: float64 [n]."""
        groups = sorted({group for one in workloads for group in one.terms})
        total = self.parts(workloads, groups).sum(axis=(1, 2)) + self.scaled.added[0]
        physical = np.log(self.source.physical.predict(workloads))
        learned = self.source.logs(workloads) - physical
        found: NDArray[Any] = np.log(np.maximum(total, 1e-9)) + self.kept * learned
        return found

    def spread(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """How far the source's forests are apart, in logarithms: float64 [n]."""
        return self.kept * self.source.spread(workloads)

    def costs(self) -> dict[str, NDArray[Any]]:
        """What each group of dispatches costs, by term, in units of the reference's time; without
        what threads take that meet."""
        physical = self.source.physical
        first = np.zeros(len(TERMS))
        _, first[_LAUNCHES], _, first[_HELD] = self.scaled.added
        pairs = zip(self.groups, self.scaled.factors, strict=True)
        return {group: physical.cost(group) * factors + first for group, factors in pairs}

    def parts(self, workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
        """The time of each group and term: float64 [n, groups, terms]."""
        known = dict(zip(self.groups, self.scaled.factors, strict=True))
        other = np.full(len(TERMS), self.scaled.other)
        factors = np.array([known.get(group, other) for group in groups])
        found = np.asarray(self.source.physical.parts(workloads, groups) * factors)
        none = (0.0,) * len(TERMS)
        terms = np.array([[one.terms.get(group, none) for group in groups] for one in workloads])
        met = np.array([[one.meetings.get(group, 0) for group in groups] for one in workloads])
        _, gap, meeting, refill = self.scaled.added
        found[:, :, _LAUNCHES] += gap * terms[:, :, _LAUNCHES] + meeting * met
        found[:, :, _HELD] += refill * terms[:, :, _HELD]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {
            "source": self.source.to_json(),
            "groups": list(self.groups),
            "factors": self.scaled.factors.tolist(),
            "added": dict(zip(ADDED, self.scaled.added.tolist(), strict=True)),
            "other": self.scaled.other,
            "kept": self.kept,
        }

    @classmethod
    def from_json(cls, value: object) -> Adapted:
        """Read one; raises `InputError`."""
        found = record(value, "model", ("source", "groups", "factors", "added", "other", "kept"))
        groups = names(found["groups"], "model.groups")
        factors = array(found["factors"], "model.factors", (len(groups), len(TERMS)))
        added = record(found["added"], "model.added", ADDED)
        kept = real(found["kept"], "model.kept")
        if (factors <= 0).any() or not 0 <= kept <= 1:
            raise InputError("model.factors must be above 0, and model.kept from 0 to 1.")
        scaled = Scaled(
            factors=factors,
            added=np.array([real(added[name], f"model.added.{name}", above=0) for name in ADDED]),
            other=real(found["other"], "model.other", above=0),
            kept=kept,
        )
        return cls(source=Hybrid.from_json(found["source"]), groups=groups, scaled=scaled)


def adapt(
    source: LatencyPredictor, records: Sequence[Record], *, changed: bool = False
) -> LatencyPredictor:
    """The source's predictor fitted to the records of one other setting, from 5 on.

    ``changed``: it may be the source's own, which is not what it was, say because a later
    compiler makes faster code. Raises `InputError` where the records are too few, of the source's
    own setting, emulated where the source is real (or the other way round), or measured by another
    protocol.
    """
    from .predictor import LatencyPredictor, observations, reference_ms, workloads_of

    setting = records[0].setting
    _check(source, records, changed)
    model = origin_of(source)
    workloads = workloads_of(records)
    relative, weights = observations(records)
    logs = np.log(relative)
    problem = Scaling.of(model, workloads)
    looseness = problem.looseness(logs, weights)
    errors = problem.left_out(logs, weights, looseness)
    return LatencyPredictor(
        setting=setting,
        reference_ms=reference_ms(records),
        model=Adapted(
            source=model,
            groups=problem.groups,
            scaled=problem.fit(logs, weights, looseness),
        ),
        familiarity=source.familiarity,
        reach=reach(errors, source.familiarity.difficulty(workloads)),
        seed=source.seed,
        trained_on=tuple(one.architecture.digest for one in records),
        adapted_from=source.setting,
    )


def origin_of(source: LatencyPredictor) -> Hybrid:
    """The model that was learned from many measurements: what is adapted, again and again."""
    return source.model.source if isinstance(source.model, Adapted) else source.model


def _check(source: LatencyPredictor, records: Sequence[Record], changed: bool) -> None:
    setting = records[0].setting
    if setting == source.setting and not changed:
        raise InputError(f"The predictor is of {setting} already: fit it anew on all its records.")
    kinds = [(one.emulated, one.protocol) for one in (setting, source.setting)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"The predictor is of {source.setting} and the measurements of {setting}: nothing "
            "carries over between real and emulated times, nor between protocols."
        )
    if len(records) < LEAST_SAMPLES:
        raise InputError(
            f"{len(records)} architectures were measured on {setting}, and {LEAST_SAMPLES} are "
            "the fewest that a predictor is adapted by."
        )
