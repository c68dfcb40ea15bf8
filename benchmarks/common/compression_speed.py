"""How much faster a training step is in bf16, on identical batches; and what bucketing saves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["measure_speed"]

_BATCHES = 6
_ROUNDS = 5


def measure_speed(data: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each task, steps of fine-tuning MiniLM-L6 in f32 and in bf16, in turns.

    A step is what the trainer does: forward, backward, clipping, the optimiser. Times are those
    of the processor, on one thread, the least of the rounds for each batch: what else
    runs on the machine does not count in them.
    """
    import torch

    torch.set_num_threads(1)  # threads that wait for each other burn processor time
    return [_task(name, place) for name, place in data.items()]


def _task(name: str, data: str) -> dict[str, Any]:
    from canao.compiler.models import load_model
    from canao.search.data import load_split
    from canao.search.evaluation_pytorch import model_inputs, tokenizer_of
    from canao.search.tasks import task_for
    from canao.search.training.batches import Batches, Collator, padding_of
    from canao.search.training.heads import with_new_head

    split = load_split(data, "train")
    task = task_for(split)
    model = with_new_head("minilm", task, 0)
    features = task.features(split.rows, tokenizer_of(load_model("minilm")), task.default_seq_len)
    lengths = [len(feature["input_ids"]) for feature in features]
    order = list(Batches(lengths, 32, 0, bucketing=True))
    collate = Collator(inputs=model_inputs(model), pad_id=0, longest=task.default_seq_len)
    batches = [
        collate([features[i] for i in order[start : start + 32]])
        for start in range(0, 32 * _BATCHES, 32)
    ]
    least = {"f32": [float("inf")] * _BATCHES, "bf16": [float("inf")] * _BATCHES}
    step = _stepper(model, task)
    for _ in range(_ROUNDS):
        for place, batch in enumerate(batches):
            for precision, best in least.items():
                best[place] = min(best[place], step(batch, precision == "bf16"))
    ratios = [a / b for a, b in zip(least["f32"], least["bf16"], strict=True)]
    return {
        "task": name,
        "tokens_per_batch": [batch["input_ids"].numel() for batch in batches],
        "f32_s": least["f32"],
        "bf16_s": least["bf16"],
        "ratio": sum(least["f32"]) / sum(least["bf16"]),
        "median_ratio": statistics.median(ratios),
        "padding": padding_of(lengths, 32, 0).to_json(),
    }


def _stepper(model: Any, task: Any) -> Any:
    import torch

    from canao.search.training.options import TrainingOptions
    from canao.search.training.run import loss_kind, training_mode
    from canao.search.training.student import Student

    options = TrainingOptions(hidden_weight=0.0, relation_weight=0.0, logits_weight=0.0)
    student = Student(model, loss_kind(task), options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(batch: dict[str, torch.Tensor], bf16: bool) -> float:
        with training_mode(model, options, bf16):
            student.train()
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = student(**batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return time.process_time() - began

    return step
