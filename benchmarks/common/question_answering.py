"""The PyTorch module that every contestant converts, and the reference it is held to.

Imports torch and transformers: only for processes that convert, or compute the reference.
"""

from __future__ import annotations

import os
from typing import Any

from .protocol import ModelSpec

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import BertForQuestionAnswering
from transformers.utils import logging

__all__ = ["QuestionAnswering", "example_inputs", "load_module"]


class QuestionAnswering(torch.nn.Module):
    """(input_ids, attention_mask), int32 of shape (1, seq_len) -> (start, end) logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the model without token types, as a one-segment input."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return output.start_logits, output.end_logits


def load_module(model: ModelSpec) -> QuestionAnswering:
    """Load the f32 weights, with the attention that transformers takes by default."""
    logging.disable_progress_bar()
    loaded = BertForQuestionAnswering.from_pretrained(model.directory, dtype=torch.float32)
    return QuestionAnswering(loaded).eval()


def example_inputs(seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs to trace with: int32 of shape (1, seq_len), the last tokens padding."""
    mask = torch.ones(1, seq_len, dtype=torch.int32)
    mask[:, seq_len * 3 // 4 :] = 0
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (1, seq_len), dtype=torch.int32, generator=generator)
    return ids, mask
