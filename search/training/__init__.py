"""Fine-tuning and distillation on transformers' Trainer: resumable, repeatable, bf16 on CPUs."""

from __future__ import annotations

from .options import TrainingOptions

__all__ = ["TrainingOptions"]
