"""One training: from a model and rows to the best checkpoint's weights in that model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from ...errors import InputError
from ..data import Row
from ..evaluation import evaluate_model
from ..evaluation_pytorch import model_inputs
from ..tasks import Feature, Task
from .batches import SEQUENCE, Collator, padding_of
from .callbacks import Finite, Marks, Progress, Quantizing, Sparsifying
from .checkpoints import last_checkpoint
from .fake_quantization import FakeQuantized
from .mode import training_mode
from .options import TrainingOptions
from .remembered import RememberedTeacher, Room, remember
from .student import Student, Teacher
from .trainer import DistillationTrainer, bf16_in_hardware, training_arguments
from .workshop import agreed, is_first, processes, together

__all__ = [
    "TrainingData",
    "TrainingReport",
    "loss_kind",
    "pad_id",
    "sign_of",
    "train",
]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What is trained on: rows for the weights, and rows held out that choose the checkpoint."""

    task: Task
    tokenizer: Any
    train: Sequence[Row]
    held: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a training did. ``best`` is the metric on the rows held out, at ``best_step``;
    ``seconds`` counts every call that it went on in; ``curve`` holds (step, metric).
    """

    metric: str
    best: float
    best_step: int
    steps: int
    planned_steps: int
    seconds: float
    rows: int
    held_rows: int
    processes: int
    bf16: bool
    padding: dict[str, Any]
    curve: tuple[tuple[int, float], ...]
    terms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "curve": [list(point) for point in self.curve]}


def sign_of(task: Task) -> int:
    """1 where the task's metric is better when higher, -1 where lower."""
    return -1 if task.lower_is_better else 1


def train(
    model: Any,
    data: TrainingData,
    options: TrainingOptions,
    folder: Path,
    *,
    what: str,
    teacher: Any = None,
    vocabulary: torch.Tensor | None = None,
    quantized: FakeQuantized | None = None,
    sparsifier: Any = None,
    student_of: Callable[[str, TrainingOptions], Student] | None = None,
    judge: Callable[[], float] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainingReport:
    """Train ``model`` in place, going on where a checkpoint in ``folder`` ends.

    ``teacher``: a model to distil from; ``vocabulary`` its ids of the model's tokens where they
    differ. ``quantized``: layers to train in 8 bits; ``sparsifier``: blocks to remove.
    ``student_of(kind of loss, options)`` makes another module to train than a `Student` of
    ``model``, and ``judge`` another value to choose by, higher is better. Raises
    `InputError` for data that cannot be trained on and `NumericsError`, with the step, where the
    loss is not finite: the last good checkpoint stays.
    """
    length = options.seq_len or data.task.default_seq_len
    features = data.task.features(data.train, data.tokenizer, length)
    progress_of = Progress(what, progress or (lambda _: None))
    bf16 = bf16_in_hardware() if options.bf16 is None else options.bf16
    with training_mode(model, options, bf16):
        kind = loss_kind(data.task)
        if student_of is None:
            student = Student(model, kind, options, teacher)
        else:
            student = student_of(kind, options)
        world = processes()
        collate = Collator(inputs=model_inputs(model), pad_id=pad_id(model), longest=length)
        reader: Teacher | RememberedTeacher | None = None
        if teacher is not None:
            asked = Teacher(teacher, student.pairs, student.relations, vocabulary)
            if world == 1:
                room = Room.of(folder.parent)
                tell = functools.partial(_asking, what, progress or (lambda _: None))
                reader = _remembered(asked, features, collate, room, bf16, tell)
            reader = reader or asked
        arguments = training_arguments(options, folder, len(features), world)
        kept: list[TrainerCallback] = [Finite()]
        kept += [Sparsifying(sparsifier, options)] if sparsifier is not None else []
        kept += [Quantizing(quantized, options)] if quantized is not None else []
        if options.patience:
            kept.append(EarlyStoppingCallback(early_stopping_patience=options.patience))
        trainer = DistillationTrainer(
            student,
            reader,
            options,
            judge or (lambda: _judge(model, data, length, options.batch_size, arguments.bf16)),
            _settled(options, quantized, sparsifier),
            args=arguments,
            train_dataset=features,
            eval_dataset=features[:1],  # asked for, not read: `evaluate` is ours
            data_collator=collate,
            callbacks=[*kept, progress_of],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Epochs(trainer))
        trainer.add_callback(Marks(progress_of, lambda: trainer.terms, together))
        try:
            trainer.go_on(agreed(last_checkpoint(folder) if is_first() else None))
            if sparsifier is not None:
                sparsifier.apply()
        finally:
            student.close()
            if isinstance(reader, Teacher):
                reader.close()
            if quantized is not None:
                quantized.deactivate()
    state = trainer.state
    curve = [(e["step"], e["eval_value"]) for e in state.log_history if "eval_value" in e]
    lengths = [len(feature["input_ids"]) for feature in features]
    best = dict(curve).get(state.best_global_step, curve[-1][1])
    sign = sign_of(data.task)
    return TrainingReport(
        metric=data.task.primary,
        best=sign * best,
        best_step=int(state.best_global_step or curve[-1][0]),
        steps=state.global_step,
        planned_steps=state.max_steps,
        seconds=progress_of.seconds,
        rows=len(data.train),
        held_rows=len(data.held),
        processes=world,
        bf16=bool(arguments.bf16),
        padding=padding_of(lengths, options.batch_size, options.seed).to_json(),
        curve=tuple((step, sign * value) for step, value in curve),
        terms=dict(trainer.terms),
    )


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the order of rows which epoch begins."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The epoch follows from the steps that are done."""
        self._trainer.begin_epoch(int((state.epoch or 0) + 1e-6))


def _remembered(
    teacher: Teacher,
    features: Sequence[Feature],
    collate: Collator,
    room: Room,
    bf16: bool,
    progress: Callable[[float], object],
) -> RememberedTeacher | None:
    """The targets of all features, which get their numbers; None if there is no room for them.

    Products in bf16 read them, so they are kept in it.
    """

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    dtype = torch.bfloat16 if bf16 else torch.float32
    found = remember(
        *(teacher, features, collate, room), autocast=autocast, dtype=dtype, progress=progress
    )
    if found is not None:
        teacher.close()
        for number, feature in enumerate(features):
            feature[SEQUENCE] = number
    return found


def _asking(what: str, tell: Callable[[str], None], share: float) -> None:
    tell(f"{what}: asking the teacher, {share:.0%} done")


def _judge(model: Any, data: TrainingData, length: int, batch: int, bf16: bool) -> float:
    found = evaluate_model(
        model,
        data.tokenizer,
        data.task,
        data.held,
        seq_len=length,
        batch_size=batch,
        bf16=bf16,
    )
    return sign_of(data.task) * found.value


def _settled(options: TrainingOptions, quantized: Any, sparsifier: Any) -> float:
    times = [options.quantize_from] if quantized is not None else []
    times += [options.sparse_at] if sparsifier is not None else []
    return max(times, default=0.0)


def loss_kind(task: Task) -> str:
    """As `losses` calls it: a head, or regression."""
    if task.kind == "regression":
        if task.head == "base":
            raise InputError("A model without a head cannot be trained on scores: give it one.")
        return "regression"
    return task.head


def pad_id(model: Any) -> int:
    """The id that fills rows up."""
    pad = getattr(model.config, "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0
