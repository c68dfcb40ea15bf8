"""How near a candidate is to what was measured, and whether it lies outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .fields import array, names, record
from .workload import Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Familiarity", "Verdict"]

_BEYOND = 1.25  # times the largest that was measured, or below the smallest by it
_UNKNOWN_SHARE = 0.05
_LEAST_MODELS = 3
_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``excess``: how far outside, 0 within (1: by another factor of 1.25, or all of the work is
    of kinds never measured); ``reason`` names what is outside, and is empty within."""

    excess: float
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Familiarity:
    """What was measured: ``points`` are logarithms of `Workload.position` [n, axes], ``errors``
    [n] how far off (in logarithms) each was predicted by models that had not seen it.

    ``known`` counts, for each group of dispatches, the models that had it.
    """

    axes: tuple[str, ...]
    points: NDArray[Any]
    errors: NDArray[Any]
    known: Mapping[str, int]

    @classmethod
    def of(cls, workloads: Sequence[Workload], errors: NDArray[Any]) -> Familiarity:
        """From what was measured, and the errors of predictions made without it."""
        known: dict[str, int] = {}
        for one in workloads:
            for group in one.terms:
                known[group] = known.get(group, 0) + 1
        axes = tuple(workloads[0].position)
        return cls(axes=axes, points=_points(workloads, axes), errors=errors, known=known)

    def difficulty(self, workloads: Sequence[Workload], *, own: bool = False) -> NDArray[Any]:
        """How large an error is to be expected, in logarithms: float64 [n].

        The mean error of the nearest that were measured, shrunk towards that of all, larger far
        from them. ``own``: the workloads are those measured, and each leaves itself out.
        """
        distance = self._distances(_points(workloads, self.axes))
        typical = self._typical()
        if own:
            np.fill_diagonal(distance, np.inf)
        count = min(_NEIGHBOURS, len(self.points) - own)
        nearest = np.argsort(distance, axis=1)[:, :count]
        overall = float(self.errors.mean())
        local = self.errors[nearest].sum(axis=1)
        mixed = (local + _NEIGHBOURS * overall) / (count + _NEIGHBOURS)
        away = np.take_along_axis(distance, nearest[:, :1], axis=1)[:, 0]
        found: NDArray[Any] = np.maximum(mixed, 1e-4) * np.maximum(1.0, away / typical) ** 0.5
        return found

    def judge(self, workload: Workload, shares: Mapping[str, float]) -> Verdict:
        """Whether a candidate is outside; ``shares`` of its predicted time by group."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        point = _points([workload], self.axes)[0]
        beyond = np.maximum(low - point, point - high) / np.log(_BEYOND)
        found = Verdict(excess=0.0, reason="")
        if beyond.max() > 1:
            # Rather what was chosen, which comes first, than the work that follows from it.
            worst = int((beyond > 0.5 * beyond.max()).argmax())
            axis = self.axes[worst]
            found = Verdict(
                excess=float(beyond.max()),
                reason=(
                    f"{axis} is {workload.position[axis]:.4g}, and was measured from "
                    f"{np.exp(low[worst]):.4g} to {np.exp(high[worst]):.4g}"
                ),
            )
        seldom = {g: share for g, share in shares.items() if self.known.get(g, 0) < _LEAST_MODELS}
        if (missing := sum(seldom.values())) > _UNKNOWN_SHARE and missing > found.excess:
            group = max(seldom, key=lambda name: seldom[name])
            how = "never" if not self.known.get(group) else "hardly ever"
            found = Verdict(
                excess=missing,
                reason=f"{missing:.0%} of its time is in dispatches {how} measured ({group})",
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {
            "axes": list(self.axes),
            "points": [[float(f"{x:.7g}") for x in row] for row in self.points],
            "errors": [float(f"{x:.6g}") for x in self.errors],
            "known": dict(self.known),
        }

    @classmethod
    def from_json(cls, value: object, axes: Sequence[str]) -> Familiarity:
        """Read one over ``axes``; raises `InputError`."""
        found = record(value, "familiarity", ("axes", "points", "errors", "known"))
        if names(found["axes"], "familiarity.axes") != tuple(axes):
            raise InputError("familiarity.axes are not those that this canao knows.")
        count = len(found["errors"]) if isinstance(found["errors"], list) else 0
        known = found["known"]
        if count < 2 or not isinstance(known, Mapping):
            raise InputError("familiarity must hold at least two errors, and what is known.")
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in known.values()):
            raise InputError("familiarity.known must count models.")
        errors = array(found["errors"], "familiarity.errors", (count,))
        if (errors < 0).any():
            raise InputError("familiarity.errors: none may be below 0.")
        return cls(
            axes=tuple(axes),
            points=array(found["points"], "familiarity.points", (count, len(axes))),
            errors=errors,
            known=dict(known),
        )

    def _distances(self, points: NDArray[Any]) -> NDArray[Any]:
        scale = np.maximum(self.points.std(axis=0), 0.05)
        away = (points[:, None, :] - self.points[None, :, :]) / scale
        found: NDArray[Any] = np.sqrt((away**2).mean(axis=2))
        return found

    def _typical(self) -> float:
        """How far a measured one is from its nearest neighbour: nine in ten are nearer."""
        distance = self._distances(self.points)
        np.fill_diagonal(distance, np.inf)
        return max(float(np.quantile(distance.min(axis=1), 0.9)), 1e-6)


def _points(workloads: Sequence[Workload], axes: Sequence[str]) -> NDArray[Any]:
    rows = [[one.position[axis] for axis in axes] for one in workloads]
    return np.log(np.maximum(np.array(rows, np.float64), 1e-9))
