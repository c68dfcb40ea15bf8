"""What happens beside the steps: sparsity, quantisation, progress, checkpoints made whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from ...errors import NumericsError
from .checkpoints import MARK, checkpoint_name, keep_only, mark_whole, read_mark
from .fake_quantization import FakeQuantized
from .options import TrainingOptions

if TYPE_CHECKING:
    from ...compiler.compression.block_sparsity import BlockSparsifier

__all__ = ["Finite", "Marks", "Progress", "Quantizing", "Sparsifying"]

_SPARSITY = "sparsity.safetensors"
_PARTS = ("blocks", "scores")


class Sparsifying(TrainerCallback):  # type: ignore[misc]
    """Blocks go little by little; those that are gone are zeros again after each step.

    The density falls until ``sparse_at`` of the steps; its state lies in the checkpoints.
    """

    def __init__(self, sparsifier: BlockSparsifier, options: TrainingOptions) -> None:
        self.sparsifier = sparsifier
        self._options = options

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on with the masks of the checkpoint that training goes on from."""
        if state.global_step:
            folder = Path(args.output_dir) / checkpoint_name(state.global_step)
            load_sparsity(self.sparsifier, folder / _SPARSITY)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Movement reads the gradients while they are there."""
        if self._options.sparsity_method == "movement":
            self.sparsifier.accumulate()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Choose blocks anew every few steps until the end of the schedule, then only re-zero."""
        step, last = state.global_step + 1, self._options.sparse_at * state.max_steps
        if step % self._options.sparsity_every == 0 and step < last:
            self.sparsifier.step(step / last)
        elif step - 1 < last <= step:
            self.sparsifier.step(1.0)
        self.sparsifier.apply()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Beside the weights: the masks and the scores."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / checkpoint_name(state.global_step)
            save_sparsity(self.sparsifier, folder / _SPARSITY)


def save_sparsity(sparsifier: BlockSparsifier, file: Path) -> None:
    """Write the masks and the scores of a sparsifier as tensors."""
    from safetensors.torch import save_file

    state = sparsifier.state_dict()
    tensors = {f"{part}/{name}": t for part in _PARTS for name, t in state[part].items()}
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, str(file))


def load_sparsity(sparsifier: BlockSparsifier, file: Path) -> None:
    """Read what `save_sparsity` wrote."""
    from safetensors.torch import load_file

    state: dict[str, Any] = {"method": sparsifier.method, **{part: {} for part in _PARTS}}
    for name, tensor in load_file(str(file)).items():
        part, _, weight = name.partition("/")
        state[part][weight] = tensor
    sparsifier.load_state_dict(state)


class Quantizing(TrainerCallback):  # type: ignore[misc]
    """Layers compute in 8 bits from ``quantize_from`` of the steps on."""

    def __init__(self, layers: FakeQuantized, options: TrainingOptions) -> None:
        self._layers = layers
        self._options = options

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Switch over when the time has come."""
        if state.global_step >= self._options.quantize_from * state.max_steps:
            self._layers.activate()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Back to wide products; the weights have learnt."""
        self._layers.deactivate()


class Finite(TrainerCallback):  # type: ignore[misc]
    """Stops before a gradient that is not finite reaches the weights."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Look at all gradients."""
        sums = [p.grad.sum() for p in model.parameters() if p.grad is not None]
        if not bool(torch.isfinite(torch.stack(sums)).all()):
            raise diverged("gradient", state.global_step + 1, args)


def diverged(what: str, step: int, args: Any) -> NumericsError:
    """The error for a loss or a gradient that is not finite."""
    kept = sorted(
        (int(path.parent.name.rpartition("-")[2]), path.parent)
        for path in Path(args.output_dir).glob(f"*/{MARK}")
    )
    place = f"its last good checkpoint is {kept[-1][1]}" if kept else "it had no checkpoint yet"
    return NumericsError(
        f"Training stopped at step {step}: the {what} is NaN or infinite ({place}). Lower the "
        "learning rate, or train without bf16."
    )


class Progress(TrainerCallback):  # type: ignore[misc]
    """Tells where training is, and how long it took: over all calls that it went on in."""

    def __init__(self, what: str, tell: Callable[[str], None]) -> None:
        self._what = what
        self._tell = tell
        self._began = time.monotonic()
        self._first = 0
        self.before_s = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.before_s + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to count."""
        self._began = time.monotonic()
        self._first = state.global_step
        if state.global_step:  # it goes on
            checkpoint = Path(args.output_dir) / checkpoint_name(state.global_step)
            self.before_s = float(read_mark(checkpoint)["seconds"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One line."""
        done = max(1, state.global_step - self._first)
        left = (time.monotonic() - self._began) / done * (state.max_steps - state.global_step)
        held = next((e["eval_value"] for e in state.log_history[::-1] if "eval_value" in e), None)
        best = "" if held is None else f", {held:.2f} on rows held out"
        self._tell(
            f"{self._what}: step {state.global_step} of {state.max_steps}{best}, "
            f"{left / 60:.0f} min left"
        )


class Marks(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole, when everybody has written all of it; then only it and the
    best one are kept. The last of all."""

    def __init__(
        self,
        progress: Progress,
        terms: Callable[[], Mapping[str, float]],
        everybody: Callable[[], None],
    ) -> None:
        self._progress = progress
        self._terms = terms
        self._everybody = everybody

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the mark, with what is told of a training and lies nowhere else."""
        self._everybody()
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            facts = {
                "step": state.global_step,
                "seconds": round(self._progress.seconds, 3),
                "finished": bool(control.should_training_stop),
                "terms": dict(self._terms()),
            }
            mark_whole(folder / checkpoint_name(state.global_step), facts)
            keep_only(folder, (state.global_step, state.best_global_step))
