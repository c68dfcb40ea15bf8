"""What a predictor says of one architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Prediction"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """``relative``: latency over that of the reference workload; ``low`` and ``high`` hold what
    will be measured in nine of ten cases. ``ms``, ``low_ms`` and ``high_ms`` are the same in
    milliseconds of the device. ``outside``: the candidate is far from all that was measured, for
    the ``reason`` (else empty); its interval is wider, and promises nothing.
    """

    relative: float
    low: float
    high: float
    ms: float | None
    outside: bool
    reason: str

    @property
    def low_ms(self) -> float | None:
        """The lower end in milliseconds."""
        return None if self.ms is None else self.ms * self.low / self.relative

    @property
    def high_ms(self) -> float | None:
        """The upper end in milliseconds."""
        return None if self.ms is None else self.ms * self.high / self.relative

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))
