"""Controllers: what proposes the next architecture, and learns from what the last ones were."""

from __future__ import annotations

from .base import Choosable, Controller, Values
from .outcome import Outcome
from .registry import CONTROLLERS, make
from .tables import OnTable

__all__ = ["CONTROLLERS", "Choosable", "Controller", "OnTable", "Outcome", "Values", "make"]
