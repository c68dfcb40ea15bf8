"""How much faster a training step is in bf16, on identical batches; and what bucketing saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .paths import cache_directory
from .stats import ratio_of, significant

__all__ = ["STEPS", "Effort", "measure_speed"]

STEPS = ("fine-tuning", "distillation")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """``rounds`` over ``batches`` of ``rows`` rows, f32 and bf16 in turns; torch's ``threads``."""

    threads: int
    rounds: int = 7
    batches: int = 6
    rows: int = 32


def measure_speed(
    task: str, data: str, step: str, recipes: Path, effort: Effort
) -> dict[str, Any]:
    """Steps of fine-tuning MiniLM-L6, or of distilling half of it from it, in f32 and in bf16.

    A step is what the trainer does: forward, the losses, backward, clipping, the optimiser; the
    teacher was asked before, as in training. Seconds are of the wall, one for each batch of each
    round; nothing is left out. ``recipes`` holds half.toml and the training options.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(effort.threads)
    try:
        return _measure(task, data, step, recipes, effort)
    finally:
        torch.set_num_threads(before)


def _measure(task: str, data: str, step: str, recipes: Path, effort: Effort) -> dict[str, Any]:
    from canao.compiler.models import load_model
    from canao.search.data import load_split
    from canao.search.evaluation_pytorch import model_inputs, tokenizer_of
    from canao.search.tasks import task_for
    from canao.search.training.batches import SEQUENCE, Batches, Collator, padding_of
    from canao.search.training.heads import with_new_head

    split = load_split(data, "train")
    known = task_for(split)
    length = known.default_seq_len
    teacher = with_new_head("minilm", known, 0)
    features = known.features(split.rows, tokenizer_of(load_model("minilm")), length)
    lengths = [len(feature["input_ids"]) for feature in features]
    order = list(Batches(lengths, effort.rows, 0, bucketing=True))
    # Evenly over an epoch: it has batches of short texts and of long ones.
    firsts = range(0, len(order), max(effort.rows, len(order) // effort.batches))
    places = [i for first in firsts for i in order[first : first + effort.rows]]
    chosen = [{**features[place], SEQUENCE: n} for n, place in enumerate(places)]
    collate = Collator(inputs=model_inputs(teacher), pad_id=0, longest=length)
    batches = [
        collate(chosen[start : start + effort.rows])
        for start in range(0, len(chosen), effort.rows)
    ][: effort.batches]
    options = _options(task, step, recipes)
    distilled = step == "distillation"
    model = _half(teacher, recipes) if distilled else teacher
    asked = teacher if distilled else None
    take = _stepper(model, asked, known, options, chosen, collate)
    spent: dict[str, list[list[float]]] = {"f32": [], "bf16": []}
    for number in range(-1, effort.rounds):  # one before them warms up
        found: dict[str, list[float]] = {"f32": [], "bf16": []}
        for place, batch in enumerate(batches):
            turns = list(found) if (number + place) % 2 else list(found)[::-1]
            for precision in turns:
                found[precision].append(significant(take(batch, precision == "bf16")))
        if number >= 0:
            for precision, seconds in found.items():
                spent[precision].append(seconds)
    totals = {name: [[sum(one)] for one in rounds] for name, rounds in spent.items()}
    return {
        "task": task,
        "step": step,
        **asdict(effort),
        "tokens_per_batch": [batch["input_ids"].numel() for batch in batches],
        "f32_s": spent["f32"],
        "bf16_s": spent["bf16"],
        "ratio": asdict(ratio_of(totals["f32"], totals["bf16"])),
        "padding": padding_of(lengths, effort.rows, 0).to_json(),
    }


def _options(task: str, step: str, recipes: Path) -> Any:
    from canao.search.training.options import TrainingOptions

    options = TrainingOptions.load(recipes / f"training-{'qa' if task == 'qa' else 'half'}.toml")
    return options.for_teacher() if step == "fine-tuning" else options


def _half(teacher: Any, recipes: Path) -> Any:
    from canao.compiler.compression.recipe import Recipe
    from canao.compiler.compression.structured import prune_structured

    return prune_structured(teacher, None, Recipe.load(recipes / "half.toml"))


def _stepper(
    model: Any,
    teacher: Any,
    task: Any,
    options: Any,
    features: Sequence[dict[str, Any]],
    collate: Any,
) -> Callable[[Mapping[str, Any], bool], float]:
    import torch

    from canao.search.training.batches import SEQUENCE
    from canao.search.training.mode import training_mode
    from canao.search.training.remembered import Room, remember
    from canao.search.training.run import loss_kind
    from canao.search.training.student import Student, Teacher

    student = Student(model, loss_kind(task), options, teacher)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
    remembered: dict[bool, Any] = {False: None, True: None}
    if teacher is not None:
        asked = Teacher(teacher, student.pairs, student.relations, None)
        for bf16 in remembered:
            remembered[bf16] = remember(
                *(asked, features, collate, Room.of(cache_directory())),
                autocast=lambda on=bf16: _autocast(on),
                dtype=torch.bfloat16 if bf16 else torch.float32,
            )
        asked.close()

    def step(given: Mapping[str, Any], bf16: bool) -> float:
        batch = dict(given)
        numbers = batch.pop(SEQUENCE)
        with training_mode(model, options, bf16):
            student.train()
            began = time.perf_counter()
            targets = None
            if remembered[bf16] is not None:
                targets = remembered[bf16](numbers, batch["input_ids"].shape[1])
            with _autocast(bf16):
                loss = student(targets=targets, **batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return time.perf_counter() - began

    return step


def _autocast(bf16: bool) -> Any:
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)
