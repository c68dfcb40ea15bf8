"""What a task is: features from rows, predictions from outputs, metrics from predictions.

Training and both ways to evaluate (PyTorch, a bundle on a device) share all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError, NumericsError
from ..data import Row, TaskKind
from ..data.labels import label_values
from ..metrics import lower_is_better

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Feature", "Task", "per_position", "per_row"]

Feature = dict[str, Any]
"""One sequence: ``input_ids``, ``attention_mask``, ``token_type_ids`` (lists of one length), the
labels that transformers' model with the task's head takes, ``row`` (index of its row),
``truncated``, and what the task needs to decode."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task, as a data set and a model's head make it.

    ``num_labels`` is the number of the head's outputs, ``label_names`` the classes' names where
    they are known, ``primary`` the metric by which models are compared.
    """

    kind: TaskKind
    num_labels: int
    primary: str
    label_names: tuple[str, ...] = ()

    default_seq_len: ClassVar[int] = 128
    largest_batch: ClassVar[int | None] = None
    """The most sequences in one call, where outputs are large."""

    @property
    @abstractmethod
    def head(self) -> str:
        """The head that a model needs, as ``load_model`` calls it."""

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the primary metric is better."""
        return lower_is_better(self.primary)

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """The names of all metrics, the usual primary one first."""

    @abstractmethod
    def features(self, rows: Sequence[Row], tokenizer: Any, seq_len: int) -> list[Feature]:
        """Sequences of at most ``seq_len`` tokens; long texts are cut, or become several.

        ``tokenizer`` is what `TextEncoder` takes. Raises InputError, naming the row, for one
        that has no token.
        """

    @abstractmethod
    def compact(
        self, outputs: Mapping[str, NDArray[Any]], features: Sequence[Feature]
    ) -> list[Any]:
        """What decoding needs of a batch's outputs, for each of its features.

        Outputs have the shape [features, ...] or [features, positions, ...], padding included.
        """

    @abstractmethod
    def decode(
        self, outputs: Sequence[Any], features: Sequence[Feature], rows: Sequence[Row]
    ) -> list[Any]:
        """A prediction for each row, from what `compact` gave for each feature."""

    @abstractmethod
    def scores(self, predictions: Sequence[Any], rows: Sequence[Row]) -> NDArray[Any]:
        """What the metrics need of each row: float64 [rows, columns]."""

    @abstractmethod
    def summarise(self, scores: NDArray[Any]) -> dict[str, float]:
        """All metrics by name, from the scores of some rows (a row may stand there twice)."""

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """All metrics by name; correlations, accuracies and F1 times 100."""
        return self.summarise(self.scores(predictions, rows))

    def count(self, scores: NDArray[Any]) -> int:
        """The number of things that the metrics average over: rows, if nothing else."""
        return len(scores)

    def check_model(self, num_labels: int, rows: Sequence[Row], model: str) -> None:
        """Raise InputError where a model with ``num_labels`` outputs cannot answer ``rows``."""
        if self.kind is TaskKind.REGRESSION and num_labels != 1:
            raise InputError(
                f"{model} tells {num_labels} classes apart, but the data asks for a score: train "
                "it for regression (one label) first."
            )
        for value, place in label_values(self.kind, rows):
            if num_labels < 2 or value >= num_labels:
                raise InputError(
                    f"{place}: the label {value} is out of range for {model}, which has "
                    f"{num_labels} label{'s' * (num_labels != 1)}, counted from 0."
                )


def per_row(outputs: Mapping[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    """An output's part for each feature.

    Raises InputError if there is no such output, NumericsError if it is not finite.
    """
    return [_finite(part, name) for part in _output(outputs, name)]


def per_position(
    outputs: Mapping[str, NDArray[Any]], name: str, features: Sequence[Feature]
) -> list[NDArray[Any]]:
    """The same for an output with positions, padding cut off."""
    array = _output(outputs, name)
    return [
        _finite(part[: len(feature["input_ids"])], name)
        for part, feature in zip(array, features, strict=True)
    ]


def _output(outputs: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in outputs:
        raise InputError(
            f"The model has no output {name!r} (it has {', '.join(outputs)}): take one with the "
            "head that the data needs."
        )
    return outputs[name]


def _finite(part: NDArray[Any], name: str) -> NDArray[Any]:
    import numpy as np

    if not np.isfinite(part).all():
        raise NumericsError(f"The model's output {name!r} has values that are not finite.")
    return part
