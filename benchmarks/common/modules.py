"""The PyTorch module that every contestant converts, and the reference it is held to.

Imports torch and transformers: only for processes that convert, or compute the reference.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from .protocol import ModelSpec

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers.utils import logging

__all__ = ["LOGITS", "WithLogits", "example_inputs", "load_module"]

LOGITS = {
    "question-answering": ("start_logits", "end_logits"),
    "sequence-classification": ("logits",),
}
"""What a head gives, in order."""


class WithLogits(torch.nn.Module):
    """(input_ids, attention_mask), int32 of shape (1, seq_len) -> the head's logits, in order."""

    def __init__(self, model: Any, head: str) -> None:
        super().__init__()
        self.model = model
        self._names = LOGITS[head]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Run the model without token types, as a one-segment input."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return tuple(output[name] for name in self._names)


def load_module(model: ModelSpec) -> WithLogits:
    """Load the f32 weights, with the attention that transformers takes by default."""
    import transformers

    logging.disable_progress_bar()
    written = (model.directory / "canao.json").exists()
    if written and importlib.util.find_spec("canao"):  # perhaps of shapes that need canao
        from canao.compiler.compression.loading import load_compressed

        loaded = load_compressed(model.directory)
    else:
        kind = {
            "question-answering": transformers.BertForQuestionAnswering,
            "sequence-classification": transformers.BertForSequenceClassification,
        }[model.head]
        loaded = kind.from_pretrained(model.directory, dtype=torch.float32)
    return WithLogits(loaded, model.head).eval()


def example_inputs(seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs to trace with: int32 of shape (1, seq_len), the last tokens padding."""
    mask = torch.ones(1, seq_len, dtype=torch.int32)
    mask[:, seq_len * 3 // 4 :] = 0
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (1, seq_len), dtype=torch.int32, generator=generator)
    return ids, mask
