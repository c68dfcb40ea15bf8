"""What a predictor is held against: simpler ways to tell a latency, each fitted on the same data.

- `FlopsBaseline`: a line through the logarithms of multiplications and latencies.
- `NeuralBaseline`: a multilayer perceptron on the architecture's sizes, as in Hardware-aware
  Transformers (HAT, Wang et al. 2020), with its size and penalty chosen by folds and several seeds
  averaged.
- `LookupBaseline`: the sum of each dispatch's time, looked up as that of the nearest dispatch
  measured (ProxylessNAS and FBNet have such tables), times one factor that fits the whole models.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...errors import InputError
from .measured import measured_program
from .predictor import observations, workloads_of
from .records import Record
from .traits import trait_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Baseline", "FlopsBaseline", "LookupBaseline", "NeuralBaseline", "baselines"]

_SHAPES = ((64,), (64, 64))
_PENALTIES = (0.03, 0.3, 3.0)
_FOLDS = 3
_SEEDS = 5


class Baseline(Protocol):
    """Fits in its constructor; ``predict`` gives relative latencies [n]."""

    name: str

    def predict(self, records: Sequence[Record]) -> NDArray[Any]:
        """The relative latency of each record's architecture."""


class FlopsBaseline:
    """log(latency) = a + b log(operations)."""

    name = "flops"

    def __init__(self, records: Sequence[Record], *, seed: int = 0) -> None:
        relative, _ = observations(records)
        self._line = np.polyfit(_operations(records), np.log(relative), 1)

    def predict(self, records: Sequence[Record]) -> NDArray[Any]:
        """See `Baseline`."""
        found: NDArray[Any] = np.exp(np.polyval(self._line, _operations(records)))
        return found


class NeuralBaseline:
    """See the module's docstring."""

    name = "neural net"

    def __init__(self, records: Sequence[Record], *, seed: int = 0) -> None:
        from threadpoolctl import threadpool_limits  # what scikit-learn stands on

        relative, _ = observations(records)
        rows, logs = trait_rows([one.architecture for one in records]), np.log(relative)
        self._middle, self._scale = rows.mean(axis=0), rows.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._log, self._spread = float(logs.mean()), float(logs.std()) or 1.0
        rows, logs = self._scaled(rows), (logs - self._log) / self._spread
        fold = np.random.default_rng(seed).permutation(len(logs)) % _FOLDS

        def error(choice: tuple[tuple[int, ...], float]) -> float:
            total = 0.0
            for number in range(_FOLDS):
                out = fold == number
                model = _network(*choice, seed).fit(rows[~out], logs[~out])
                total += float(np.abs(model.predict(rows[out]) - logs[out]).sum())
            return total

        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # that it stopped at its last step
            shape, penalty = min(
                ((shape, penalty) for shape in _SHAPES for penalty in _PENALTIES), key=error
            )
            self._models = [
                _network(shape, penalty, seed + number).fit(rows, logs) for number in range(_SEEDS)
            ]

    def predict(self, records: Sequence[Record]) -> NDArray[Any]:
        """See `Baseline`."""
        rows = self._scaled(trait_rows([one.architecture for one in records]))
        logs = np.mean([model.predict(rows) for model in self._models], axis=0)
        found: NDArray[Any] = np.exp(np.clip(logs, -5, 5) * self._spread + self._log)
        return found

    def _scaled(self, rows: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.clip((rows - self._middle) / self._scale, -5, 5)
        return found


class LookupBaseline:
    """See the module's docstring. Raises `InputError` where no record has times of dispatches."""

    name = "look-up"

    def __init__(self, records: Sequence[Record], *, seed: int = 0) -> None:
        self._table: dict[tuple[Any, ...], tuple[NDArray[Any], NDArray[Any]]] = {}
        found: dict[tuple[Any, ...], list[tuple[NDArray[Any], float]]] = {}
        for one in records:
            dispatches = measured_program(one).dispatches
            if len(dispatches) != len(one.dispatches):
                continue
            reference = one.median_ms / one.relative
            for dispatch, (_, ms) in zip(dispatches, one.dispatches, strict=True):
                for key in _keys(dispatch):
                    found.setdefault(key, []).append((_place(dispatch), ms / reference))
        if not found:
            raise InputError("No record tells the times of its dispatches: nothing to look up.")
        for key, pairs in found.items():
            places, times = zip(*pairs, strict=True)
            self._table[key] = np.array(places), np.array(times)
        self._factor = 1.0
        relative, _ = observations(records)
        self._factor = float(np.exp(np.median(np.log(relative) - np.log(self.predict(records)))))

    def predict(self, records: Sequence[Record]) -> NDArray[Any]:
        """See `Baseline`."""
        sums = [
            sum(self._time(one) for one in measured_program(record).dispatches)
            for record in records
        ]
        return np.asarray(self._factor * np.maximum(np.array(sums), 1e-9))

    def _time(self, dispatch: Any) -> float:
        key = next(key for key in _keys(dispatch) if key in self._table)
        places, times = self._table[key]
        distance = ((places - _place(dispatch)) ** 2).sum(axis=1)
        return float(np.median(times[distance <= distance.min() + 1e-9]))


def baselines(records: Sequence[Record], *, seed: int = 0) -> list[Baseline]:
    """All of them fitted on the records; the look-up only where dispatches were timed."""
    found: list[Baseline] = [FlopsBaseline(records), NeuralBaseline(records, seed=seed)]
    with contextlib.suppress(InputError):  # no times of dispatches, or of none that are known
        found.append(LookupBaseline(records))
    return found


def _operations(records: Sequence[Record]) -> NDArray[Any]:
    found: NDArray[Any] = np.log([one.position["operations"] for one in workloads_of(records)])
    return found


def _network(shape: tuple[int, ...], penalty: float, seed: int) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(
        hidden_layer_sizes=shape, alpha=penalty, solver="lbfgs", max_iter=200, random_state=seed
    )


def _keys(dispatch: Any) -> tuple[tuple[Any, ...], ...]:
    """What must be equal to be looked up, the narrowest first; the last is any dispatch."""
    sparse = dispatch.density < 1
    return (dispatch.kind, dispatch.precision, sparse), (dispatch.kind,), ()


def _place(dispatch: Any) -> NDArray[Any]:
    sizes = (dispatch.rows, dispatch.depth, dispatch.outputs, dispatch.flops, dispatch.bytes)
    return np.log(np.maximum(np.array([*sizes, dispatch.density], np.float64), 1e-3))
