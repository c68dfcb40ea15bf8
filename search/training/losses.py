"""The terms of the loss, each a mean over what is real: rows, or tokens that are not padding.

All are computed in float32. Shapes: logits [rows, classes] or [rows, tokens, classes]; hidden
states [rows, tokens, width]; ``mask`` [rows, tokens], 1 where a token is real.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as functional

__all__ = ["hidden_loss", "logits_loss", "task_loss"]

Batch = Mapping[str, torch.Tensor]
Outputs = Mapping[str, Any]
_NEVER = -1e4


def task_loss(kind: str, outputs: Outputs, batch: Batch) -> torch.Tensor:
    """The loss on the labels, for a head of ``canao.compiler`` and ``regression``.

    Cross entropy (of both ends of the span in question answering, of the next token in a causal
    language model), or the squared error of a regression. Labels of -100 do not count.
    """
    if kind == "question-answering":
        ends = (("start_logits", "start_positions"), ("end_logits", "end_positions"))
        losses = [functional.cross_entropy(outputs[a].float(), batch[b]) for a, b in ends]
        return (losses[0] + losses[1]) / 2
    logits = outputs["logits"].float()
    labels = batch["labels"]
    if kind == "regression":
        return functional.mse_loss(logits.squeeze(-1), labels.float())
    if kind == "causal-lm":
        logits, labels = logits[:, :-1], labels[:, 1:]
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100
    )


def logits_loss(
    kind: str, student: Outputs, teacher: Outputs, batch: Batch, temperature: float
) -> torch.Tensor:
    """T^2 KL(teacher || student) of outputs softened by T (Hinton et al. 2015, 1503.02531).

    A regression has the squared error instead. In question answering the distribution is over
    the real tokens, once for each end of the span.
    """
    mask = batch["attention_mask"]
    if kind == "regression":
        return functional.mse_loss(student["logits"].float(), teacher["logits"].float())
    if kind == "question-answering":
        hidden = mask == 0
        losses = [
            _divergence(
                student[name].float().masked_fill(hidden, _NEVER),
                teacher[name].float().masked_fill(hidden, _NEVER),
                temperature,
            ).mean()
            for name in ("start_logits", "end_logits")
        ]
        return (losses[0] + losses[1]) / 2
    found = _divergence(student["logits"].float(), teacher["logits"].float(), temperature)
    if found.ndim == 1:
        return found.mean()
    counted = batch["labels"] != -100 if kind == "masked-lm" else mask != 0
    return (found * counted).sum() / counted.sum().clamp(min=1)


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of hidden states over the teacher's own mean square (TinyBERT, 1909.10351)."""
    real = mask[..., None].float()
    target = teacher.float()
    error = ((student.float() - target).square() * real).sum()
    return error / (target.square() * real).sum().clamp(min=1e-12)


def _divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL over the last dimension, which is gone from the result."""
    ours = functional.log_softmax(student / temperature, dim=-1)
    theirs = functional.log_softmax(teacher / temperature, dim=-1)
    return (theirs.exp() * (theirs - ours)).sum(dim=-1) * temperature**2
