"""Timings kept in one file: written by several processes at once, never lost, never mixed."""

from __future__ import annotations

from .row import StoredTiming
from .store import TimingStore

__all__ = ["StoredTiming", "TimingStore"]
