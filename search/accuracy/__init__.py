"""How accurate an architecture would be: weights that all sub-networks of a teacher share."""

from __future__ import annotations

from .options import SharingOptions
from .result import Accuracy

__all__ = ["Accuracy", "SharingOptions"]
