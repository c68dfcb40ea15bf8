"""Tasks: what rows of a kind become for a model, and what its outputs mean."""

from __future__ import annotations

from .base import Feature, Task
from .batching import collate, length_batches
from .choosing import model_label_names, task_for
from .encoding import TextEncoder

__all__ = [
    "Feature",
    "Task",
    "TextEncoder",
    "collate",
    "length_batches",
    "model_label_names",
    "task_for",
]
