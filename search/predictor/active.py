"""What to measure next: the candidates that would tell most about all the others.

The error of a predictor is taken for a Gaussian process: each cost of its physical model may be
wrong by some factor, and architectures near each other err alike. Where it is to be adapted to
another setting, what `scaling` lets vary may be wrong instead. Of a pool, those are chosen one
after another that leave the least variance over the whole pool (Cohn 1996, active learning; Seo
et al. 2000), larger where errors are expected to be larger. Once one is chosen, what resembles it
tells little more, so that a batch is diverse by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .scaling import Scaling
from .transfer import origin_of
from .workload import Workload, workload_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..space.architecture import Architecture
    from .predictor import LatencyPredictor
    from .records import Setting

__all__ = ["choose_next", "choose_workloads"]

_COST_DOUBT = 0.3  # of a cost, in logarithms
_REACH = 2.0  # of resemblance, in standard deviations of the measured
_MOST = 3000


def choose_next(
    predictor: LatencyPredictor,
    pool: Sequence[Architecture],
    count: int,
    *,
    measured: Sequence[Architecture] = (),
    to: Setting | None = None,
    seed: int = 0,
) -> list[Architecture]:
    """``count`` architectures of the ``pool`` to measure next, none of them ``measured`` already.

    ``measured`` are those that the predictor learned from; with ``to``, those of that setting,
    which the predictor is to be adapted to (of its device nothing but target and threads need be
    right). Of a pool beyond 3,000, as many are
    drawn by ``seed``. Raises `InputError` where the pool holds fewer that are new.
    """
    old = set(measured)
    new = [one for one in dict.fromkeys(pool) if one not in old]
    if not 0 < count <= len(new):
        raise InputError(f"The pool has {len(new)} new architectures: {count} cannot be chosen.")
    if len(new) > max(_MOST, count):
        drawn = np.random.default_rng(seed).choice(len(new), max(_MOST, count), replace=False)
        new = [new[index] for index in sorted(drawn)]
    setting = to or predictor.setting

    def described(ones: Sequence[Architecture]) -> list[Workload]:
        return [workload_of(one, *setting.place) for one in ones]

    chosen = choose_workloads(
        predictor,
        described(new),
        count,
        measured=described(measured),
        adapting=setting != predictor.setting,
    )
    return [new[index] for index in chosen]


def choose_workloads(
    predictor: LatencyPredictor,
    pool: Sequence[Workload],
    count: int,
    *,
    measured: Sequence[Workload] = (),
    adapting: bool = False,
) -> list[int]:
    """Places in the ``pool`` of those to measure next, the most telling first; ``adapting`` the
    predictor to another setting, which the workloads are of."""
    everyone = [*pool, *measured]
    if adapting:
        covariance = Scaling.of(origin_of(predictor), everyone).doubt()
    else:
        covariance = _cost_doubt(predictor, everyone)
    covariance = covariance + _near(predictor, everyone)
    noise = float(np.median(predictor.familiarity.errors)) ** 2 / 2 + 1e-8
    size = len(pool)
    for index in range(size, len(everyone)):
        covariance = _observed(covariance, index, noise)
    covariance = covariance[:size, :size]
    chosen: list[int] = []
    for _ in range(count):
        gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + noise)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        covariance = _observed(covariance, best, noise)
    return chosen


def _observed(covariance: NDArray[Any], index: int, noise: float) -> NDArray[Any]:
    """What doubt is left once one is measured."""
    column = covariance[:, index]
    left: NDArray[Any] = covariance - np.outer(column, column) / (column[index] + noise)
    return left


def _cost_doubt(predictor: LatencyPredictor, workloads: Sequence[Workload]) -> NDArray[Any]:
    """How errors vary together where each cost may be wrong, in logarithms squared: [n, n]."""
    groups = sorted({group for one in workloads for group in one.terms})
    time = predictor.model.parts(workloads, groups)
    shares = (time / time.sum(axis=(1, 2), keepdims=True)).reshape(len(workloads), -1)
    found: NDArray[Any] = _COST_DOUBT**2 * shares @ shares.T
    return found


def _near(predictor: LatencyPredictor, workloads: Sequence[Workload]) -> NDArray[Any]:
    """How errors vary together of architectures near each other, in logarithms squared: [n, n]."""
    familiarity = predictor.familiarity
    axes = familiarity.axes
    point = np.log([[max(one.position[axis], 1e-9) for axis in axes] for one in workloads])
    point = point / np.maximum(familiarity.points.std(axis=0), 0.05)
    squared = ((point[:, None, :] - point[None, :, :]) ** 2).mean(axis=2)
    error = float(np.sqrt((familiarity.errors**2).mean()))
    hard = familiarity.difficulty(workloads) / max(float(familiarity.errors.mean()), 1e-6)
    near: NDArray[Any] = error**2 * np.outer(hard, hard) * np.exp(-squared / (2 * _REACH**2))
    return near
