"""transformers' Trainer with a teacher, an order of rows that stays, and our metric."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from ...errors import NumericsError
from .batches import SEQUENCE, Batches
from .callbacks import diverged
from .checkpoints import read_mark
from .options import TrainingOptions
from .remembered import RememberedTeacher
from .student import LABELS, Student, Teacher
from .workshop import agreed

__all__ = ["DistillationTrainer", "bf16_in_hardware", "training_arguments"]

# Added to what is held out while a model has not its final form: never chosen, never "worse".
_UNSETTLED = -1e9


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """Trains a `Student`, with the targets of a `Teacher` if there is one.

    ``judge`` gives the value of the metric on the rows held out, higher is better; checkpoints
    from before ``settled`` of the steps (a fraction) are not chosen.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher | RememberedTeacher | None,
        options: TrainingOptions,
        judge: Callable[[], float],
        settled: float,
        **arguments: Any,
    ) -> None:
        super().__init__(model=student, **arguments)
        self.control: TrainerControl
        self._teacher = teacher
        self._options = options
        self._judge = judge
        self._settled = settled
        self._order: Batches | None = None
        self.terms: dict[str, float] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The task's loss and the terms of distillation."""
        del num_items_in_batch
        targets = None
        sequences = inputs.pop(SEQUENCE, None)
        if isinstance(self._teacher, RememberedTeacher):
            targets = self._teacher(sequences, inputs["input_ids"].shape[1])
        elif self._teacher is not None:
            unlabelled = {name: item for name, item in inputs.items() if name not in LABELS}
            with self.accelerator.autocast():
                targets = self._teacher(unlabelled)
        found = model(targets=targets, **inputs)
        if not self._everywhere(torch.isfinite(found["loss"].detach())):
            raise diverged("loss", self.state.global_step + 1, self.args)
        self.terms = {name: float(value.detach()) for name, value in found.items()}
        return (found["loss"], found) if return_outputs else found["loss"]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metric on the rows held out, and by what a checkpoint is chosen."""
        del eval_dataset, ignore_keys
        step = self.state.global_step
        try:
            value = agreed(self._judge())  # so that all stop early, or none
        except NumericsError as error:
            raise diverged("output on the rows held out", step, self.args) from error
        chosen = value if step >= self._settled * self.state.max_steps else _UNSETTLED + step
        metrics = {f"{metric_key_prefix}_value": value, f"{metric_key_prefix}_chosen": chosen}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def begin_epoch(self, epoch: int) -> None:
        """Say which epoch's order is next; transformers forgets it within an epoch."""
        if self._order is not None:
            self._order.set_epoch(epoch)

    def go_on(self, checkpoint: Path | None) -> None:
        """Train from a checkpoint on, or from the start; then take the best weights."""
        mark = None if checkpoint is None else read_mark(checkpoint)
        if checkpoint is None or mark is None or not mark["finished"]:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            return
        # No step is left, but all that lies beside the weights is read as for a next one.
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        self._load_best_model()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self.terms = dict(mark.get("terms", {}))

    def _everywhere(self, good: torch.Tensor) -> bool:
        """Whether a scalar is true in every process: so all stop, none waits for the others."""
        if self.args.world_size > 1:
            good = self.accelerator.reduce(good.float(), reduction="sum") == self.args.world_size
        return bool(good)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        self._order = Batches(
            [len(row["input_ids"]) for row in rows],
            self.args.train_batch_size * self.args.world_size,
            self._options.seed,
            bucketing=self._options.bucketing,
        )
        return self._order


def bf16_in_hardware() -> bool:
    """Whether this CPU multiplies bfloat16 (AMX or AVX-512 BF16), by oneDNN."""
    with contextlib.suppress(AttributeError, RuntimeError):
        amx = bool(torch.cpu._is_amx_tile_supported())
        return amx or bool(torch.cpu._is_avx512_bf16_supported())
    return False


def training_arguments(
    options: TrainingOptions, folder: Path, rows: int, world: int
) -> TrainingArguments:
    """transformers' arguments for ``rows`` training rows and ``world`` processes."""
    share = max(1, options.batch_size // world)
    epoch = -(-rows // (share * world))
    steps = max(1, round(options.epochs * epoch))
    every = max(1, -(-epoch // options.evaluations_per_epoch))
    common: Mapping[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": share,
        "max_steps": steps,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "warmup_steps": int(options.warmup * steps),
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "seed": options.seed,
        "bf16": bf16_in_hardware() if options.bf16 is None else options.bf16,
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(
        **common,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=min(every, steps),
        save_steps=min(every, steps),
        load_best_model_at_end=True,
        metric_for_best_model="chosen",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=min(every, steps),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=list(LABELS),
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=world > 1,
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
        report_to=[],
        log_level="error",
    )
