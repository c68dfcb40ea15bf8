"""Tensors as text that keeps every bit."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["packed", "unpacked"]


def packed(tensors: Sequence[torch.Tensor]) -> str:
    """Tensors of float32, one after another, in base 64."""
    flat = b"".join(t.detach().numpy().astype("<f4").tobytes() for t in tensors)
    return base64.b64encode(flat).decode()


def unpacked(text: str, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of the shapes of ``like``; ValueError where the text has not as many numbers."""
    numbers = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    if len(numbers) != sum(tensor.numel() for tensor in like):
        raise ValueError("it was saved for another space")
    found, start = [], 0
    for tensor in like:
        part = numbers[start : start + tensor.numel()].copy()
        found.append(torch.from_numpy(part).reshape(tensor.shape))
        start += tensor.numel()
    return found
