"""The loop that both ways of evaluating share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .data import Row, Split, TaskKind
from .evaluation_result import Evaluation
from .metrics import bootstrap
from .tasks import Feature, Task, collate, length_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Runner", "evaluate_with", "refuse_unlabelled"]

Arrays = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, kw_only=True)
class Runner:
    """What runs a model: arrays [rows, positions] of ``inputs`` in, outputs by name out.

    ``max_length`` is the longest sequence that it takes (None: any), ``borders`` the lengths to
    which it pads; the rest says what it is.
    """

    run: Callable[[Arrays], Mapping[str, NDArray[Any]]]
    inputs: tuple[str, ...]
    pad_id: int
    max_length: int | None
    backend: str
    device: str
    precision: str
    borders: tuple[int, ...] = ()
    target: str | None = None
    emulated: bool = False


def refuse_unlabelled(split: Split, head: str) -> None:
    """Name the first row, where a model that classifies meets rows without labels."""
    if head == "sequence-classification" and split.kind is TaskKind.LANGUAGE_MODELLING:
        raise InputError(
            f"{split.rows[0]['place']} has text alone, without the 'label' or 'score' by which a "
            f"model with the head {head!r} is judged."
        )


def evaluate_with(
    runner: Runner,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    *,
    seq_len: int | None,
    batch_size: int,
    seed: int,
    model: str,
    data: str,
    split: str,
    progress: Callable[[str], None] | None,
    scored: Callable[[NDArray[Any]], object] | None = None,
) -> Evaluation:
    """Run ``rows`` through a model and tell how good its predictions are.

    ``scored`` is told what the metrics are made of, float64 [rows, columns].
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"A seed is a whole number from 0 on, not {seed!r}.")
    if not rows:
        raise InputError("There is no row to evaluate on.")
    started = time.monotonic()
    length = _length(task, runner, seq_len)
    features = task.features(rows, tokenizer, length)
    outputs = _run(runner, task, features, batch_size, progress or (lambda _: None))
    predictions = task.decode(outputs, features, rows)
    scores = task.scores(predictions, rows)
    if scored is not None:
        scored(scores)
    metrics = task.summarise(scores)
    interval = bootstrap(lambda some: task.summarise(some)[task.primary], scores, seed=seed)
    return Evaluation(
        metric=task.primary,
        value=metrics[task.primary],
        n=task.count(scores),
        interval=interval,
        metrics=metrics,
        seconds=time.monotonic() - started,
        task=task.kind.value,
        model=model,
        data=data,
        split=split,
        backend=runner.backend,
        device=runner.device,
        target=runner.target,
        precision=runner.precision,
        seq_len=length,
        truncated=len({one["row"] for one in features if one["truncated"]}),
        emulated=runner.emulated,
    )


def _length(task: Task, runner: Runner, wanted: int | None) -> int:
    most = runner.max_length
    if wanted is None:
        return min(task.default_seq_len, most or task.default_seq_len)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(f"A sequence length is a whole number from 1 on, not {wanted!r}.")
    if most is not None and wanted > most:
        raise InputError(f"The model takes at most {most} tokens, not {wanted}: ask for fewer.")
    return wanted


def _run(
    runner: Runner,
    task: Task,
    features: Sequence[Feature],
    batch_size: int,
    tell: Callable[[str], None],
) -> list[Any]:
    """What `Task.compact` keeps of the outputs, in the order of the features."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"A batch size is a whole number from 1 on, not {batch_size!r}.")
    size = min(batch_size, task.largest_batch or batch_size)
    lengths = [len(feature["input_ids"]) for feature in features]
    kept: list[Any] = [None] * len(features)
    done = 0
    for batch in length_batches(lengths, size, borders=runner.borders):
        some = [features[index] for index in batch]
        arrays = collate(some, inputs=runner.inputs, pad_id=runner.pad_id, labels=False)
        for index, one in zip(batch, task.compact(runner.run(arrays), some), strict=True):
            kept[index] = one
        done += len(batch)
        tell(f"evaluating: {done:,} of {len(features):,} sequences")
    return kept
