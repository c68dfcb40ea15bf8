"""Whether a finished model meets the specification, by what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from .measured import Measured
from .specification import Specification
from .units import shown_memory

__all__ = ["misses"]

_SLACK = 1e-9


def misses(
    specification: Specification,
    measured: Sequence[Measured],
    *,
    metric: float | None = None,
    teacher: float | None = None,
    name: str = "metric",
) -> list[str]:
    """Why a model is refused, a sentence for each limit it misses; empty where it is not.

    ``measured``: all measurements of it, each of which must fit: the upper bound of the latency's
    interval (95 %), the largest memory. ``metric`` and ``teacher``: the model's value of ``name``
    and the teacher's; None: it is not judged by it yet.
    """
    found = []
    limit, room = specification.latency_ms, specification.memory_bytes
    if limit is not None:
        upper = max(one.interval[1] for one in measured)
        median = max(one.latency_ms for one in measured)
        if upper > limit:
            found.append(
                f"takes {median:.3g} ms, at most {upper:.4g} ms, and {limit:g} ms are allowed"
            )
    if room is not None:
        peaks = [one.peak_bytes for one in measured]
        if any(peak is None for peak in peaks):
            found.append("its memory cannot be told on this device, and there is a limit to it")
        elif (peak := max(peak for peak in peaks if peak is not None)) > room:
            found.append(f"takes {shown_memory(peak)}, and {shown_memory(room)} are allowed")
    allowed = specification.max_loss
    if allowed is not None and metric is not None and teacher is not None:
        loss = teacher - metric
        if loss > allowed + _SLACK:
            found.append(
                f"{name} is {metric:.2f}, {loss:.2f} below the teacher's {teacher:.2f}, and "
                f"{allowed:g} are allowed"
            )
    return found
