"""A predictor of another device from a few measurements there.

Devices differ in how long the same work takes, and less in what work there is. So each cost of
the source's physical model is scaled: by a factor of the device, times one for launches,
operations and so on, times one for the kind of dispatch, and for its group, and for both together.
What passes between dispatches is a cost of its own, since threads have to meet. All but the first
are drawn to 1 (a Gaussian prior on their logarithms), so that a handful of measurements moves what
they say something of. What the source's trees learned is kept as far as it helps. How strong the
prior is, and how far the trees count, is what predicts measurements left out best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .conformal import reach
from .fields import array, names, real, record
from .hybrid import Hybrid
from .records import Record
from .workload import TERMS, Workload, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .predictor import LatencyPredictor

__all__ = ["LEAST_SAMPLES", "Adapted", "adapt"]

LEAST_SAMPLES = 5
"""The fewest measurements that a predictor is adapted by."""

# Standard deviations of the logarithms of factors: of a term, a kind, a group, a kind's term.
_PRIOR = (0.7, 0.4, 0.3, 0.3)
_LOOSENESS = (0.3, 1.0, 3.0)
_KEPT = (0.0, 0.5, 1.0)
_NOISE = 0.03
_LITTLE = 5e-4  # of the reference: about a microsecond
_STEPS = 30
_FOLDS = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapted:
    """``factors`` [groups, terms] of the source's costs; ``kept`` (0 to 1) of what its trees say;
    ``other`` is the factor of groups that nobody has seen. Every call takes ``constant``, and
    every dispatch ``gap`` more, in units of the reference's time."""

    source: Hybrid
    groups: tuple[str, ...]
    factors: NDArray[Any]
    constant: float
    gap: float
    other: float
    kept: float

    def logs(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """Logarithms of relative latencies: float64 [n]."""
        groups = sorted({group for one in workloads for group in one.terms})
        time = self.parts(workloads, groups).sum(axis=(1, 2))
        total = time + self.constant
        physical = np.log(self.source.physical.predict(workloads))
        learned = self.source.logs(workloads) - physical
        found: NDArray[Any] = np.log(np.maximum(total, 1e-9)) + self.kept * learned
        return found

    def spread(self, workloads: Sequence[Workload]) -> NDArray[Any]:
        """How far the source's forests are apart, in logarithms: float64 [n]."""
        return self.kept * self.source.spread(workloads)

    def costs(self) -> dict[str, NDArray[Any]]:
        """What each group of dispatches costs, by term, in units of the reference's time."""
        physical = self.source.physical
        pairs = zip(self.groups, self.factors, strict=True)
        first = np.eye(len(TERMS))[0] * self.gap
        return {group: physical.cost(group) * factors + first for group, factors in pairs}

    def parts(self, workloads: Sequence[Workload], groups: Sequence[str]) -> NDArray[Any]:
        """The time of each group and term: float64 [n, groups, terms]."""
        known = dict(zip(self.groups, self.factors, strict=True))
        other = np.full(len(TERMS), self.other)
        factors = np.array([known.get(group, other) for group in groups])
        found = np.asarray(self.source.physical.parts(workloads, groups) * factors)
        none = (0.0,) * len(TERMS)
        launches = [[one.terms.get(group, none)[0] for group in groups] for one in workloads]
        found[:, :, 0] += self.gap * np.array(launches)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {
            "source": self.source.to_json(),
            "groups": list(self.groups),
            "factors": self.factors.tolist(),
            "constant": self.constant,
            "gap": self.gap,
            "other": self.other,
            "kept": self.kept,
        }

    @classmethod
    def from_json(cls, value: object) -> Adapted:
        """Read one; raises `InputError`."""
        keys = ("source", "groups", "factors", "constant", "gap", "other", "kept")
        found = record(value, "model", keys)
        groups = names(found["groups"], "model.groups")
        factors = array(found["factors"], "model.factors", (len(groups), len(TERMS)))
        kept = real(found["kept"], "model.kept")
        if (factors <= 0).any() or not 0 <= kept <= 1:
            raise InputError("model.factors must be above 0, and model.kept from 0 to 1.")
        return cls(
            source=Hybrid.from_json(found["source"]),
            groups=groups,
            factors=factors,
            constant=real(found["constant"], "model.constant", above=0),
            gap=real(found["gap"], "model.gap", above=0),
            other=real(found["other"], "model.other", above=0),
            kept=kept,
        )


def adapt(source: LatencyPredictor, records: Sequence[Record]) -> LatencyPredictor:
    """The source's predictor fitted to the records of one other setting, from 5 on.

    Raises `InputError` where they are too few, of the source's own setting, emulated where the
    source is real (or the other way round), or measured by another protocol.
    """
    from .predictor import LatencyPredictor, observations, reference_ms, workloads_of

    setting = records[0].setting
    _check(source, records)
    model = source.model.source if isinstance(source.model, Adapted) else source.model
    workloads = workloads_of(records)
    relative, weights = observations(records)
    problem = _Problem.of(model, workloads, np.log(relative), weights)
    looseness, kept = min(
        product(_LOOSENESS, _KEPT),
        key=lambda both: float(np.abs(problem.left_out(both[0], both[1], _FOLDS)).mean()),
    )
    factors, constant, gap, other = problem.fit(looseness, kept)
    errors = problem.left_out(looseness, kept, len(records))
    difficulty = source.familiarity.difficulty(workloads)
    return LatencyPredictor(
        setting=setting,
        reference_ms=reference_ms(records),
        model=Adapted(
            source=model,
            groups=problem.groups,
            factors=factors,
            constant=constant,
            gap=gap,
            other=other,
            kept=kept,
        ),
        familiarity=source.familiarity,
        reach=reach(errors, difficulty),
        seed=source.seed,
        trained_on=tuple(one.architecture.digest for one in records),
        adapted_from=source.setting,
    )


def _check(source: LatencyPredictor, records: Sequence[Record]) -> None:
    setting = records[0].setting
    if setting == source.setting:
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


@dataclass(frozen=True, eq=False, kw_only=True)
class _Problem:
    """``time`` [n, 2 + groups x terms] by the source, the constant and what passes between
    dispatches first; ``learned`` [n] by its trees; ``design`` [2 + groups x terms, effects] says
    which effects scale a cost."""

    groups: tuple[str, ...]
    time: NDArray[Any]
    learned: NDArray[Any]
    logs: NDArray[Any]
    weights: NDArray[Any]
    design: NDArray[Any]
    deviations: NDArray[Any]

    @classmethod
    def of(
        cls,
        model: Hybrid,
        workloads: Sequence[Workload],
        logs: NDArray[Any],
        weights: NDArray[Any],
    ) -> _Problem:
        groups = tuple(sorted({*model.groups, *(g for one in workloads for g in one.terms)}))
        parts = model.physical.parts(workloads, groups).reshape(len(workloads), -1)
        constant = np.full((len(workloads), 1), max(model.physical.constant, _LITTLE))
        gap = np.array([[_LITTLE * one.position["launches"]] for one in workloads])
        design, deviations = _effects(groups)
        return cls(
            groups=groups,
            time=np.concatenate([constant, gap, parts], axis=1),
            learned=model.logs(workloads) - np.log(model.physical.predict(workloads)),
            logs=logs,
            weights=weights,
            design=design,
            deviations=deviations,
        )

    def fit(self, looseness: float, kept: float) -> tuple[NDArray[Any], float, float, float]:
        """(factors [groups, terms], constant, gap, factor of what is unknown)."""
        effects = self._solve(np.ones(len(self.logs), bool), looseness, kept)
        factors = np.exp(self.design @ effects)
        each = factors[2:].reshape(len(self.groups), len(TERMS))
        constant = float(factors[0] * self.time[0, 0])
        return each, constant, float(factors[1]) * _LITTLE, float(np.exp(effects[0]))

    def left_out(self, looseness: float, kept: float, folds: int) -> NDArray[Any]:
        """The error, in logarithms, of each measurement by a model that had not seen it: [n]."""
        found = np.empty(len(self.logs))
        fold = np.arange(len(found)) % folds
        for number in range(min(folds, len(found))):
            out = fold == number
            effects = self._solve(~out, looseness, kept)
            total = self.time[out] @ np.exp(self.design @ effects)
            found[out] = (
                self.logs[out] - np.log(np.maximum(total, 1e-9)) - kept * self.learned[out]
            )
        return found

    def _solve(self, rows: NDArray[Any], looseness: float, kept: float) -> NDArray[Any]:
        """The most probable effects, by Gauss-Newton with Huber's weights."""
        time, target = self.time[rows], (self.logs - kept * self.learned)[rows]
        weights = self.weights[rows]
        precision = np.diag(1 / (self.deviations * looseness) ** 2)
        effects = np.zeros(self.design.shape[1])
        effects[0] = np.median(target - np.log(np.maximum(time.sum(axis=1), 1e-9)))
        start = effects[0]
        for _ in range(_STEPS):
            scaled = time * np.exp(self.design @ effects)
            total = np.maximum(scaled.sum(axis=1), 1e-12)
            slope = (scaled @ self.design) / total[:, None]
            away = target - np.log(total)
            huber = np.minimum(1.0, 3 * _NOISE / np.maximum(np.abs(away), 1e-12))
            by = (slope * (weights * huber)[:, None] / _NOISE**2).T
            pull = effects.copy()
            pull[0] -= start
            step = np.linalg.solve(by @ slope + precision, by @ away - precision @ pull)
            effects = effects + np.clip(step, -0.5, 0.5)
            if np.abs(step).max() < 1e-6:
                break
        return effects


def _effects(groups: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(design [2 + groups x terms, effects], standard deviations [effects])."""
    kinds = sorted({kind_of(group) for group in groups})
    columns: list[tuple[str, ...]] = [("device",), ("constant",), ("gap",)]
    columns += [("term", term) for term in TERMS]
    columns += [("kind", kind) for kind in kinds]
    columns += [("group", group) for group in groups]
    columns += [("both", kind, term) for kind in kinds for term in TERMS]
    place = {name: index for index, name in enumerate(columns)}
    design = np.zeros((2 + len(groups) * len(TERMS), len(columns)))
    design[0, [0, 1]] = design[1, [0, 2]] = 1
    for row, (group, term) in enumerate(product(groups, TERMS), 2):
        kind = kind_of(group)
        names_of = (("device",), ("term", term), ("kind", kind), ("group", group))
        design[row, [place[name] for name in (*names_of, ("both", kind, term))]] = 1
    by = dict(zip(("term", "kind", "group", "both"), _PRIOR, strict=True))
    by |= {"constant": 1.0, "gap": 1.5}
    return design, np.array([by.get(name[0], 3.0) for name in columns])
