"""Where no model meets the specification: how near the best came, and what would have to give."""

from __future__ import annotations

from collections.abc import Mapping

from .finalist import Finalist
from .finals import Finals
from .specification import Specification
from .trial import Trial
from .units import enough_latency, enough_loss, enough_memory, shown_memory

__all__ = ["nearest"]

_MARGIN = 1.005
_POINTS = 0.01

Need = tuple[str, float, str]
"""A limit that would have to give: its name, by what share, and the option that is enough."""


def nearest(
    trials: Mapping[int, Trial],
    finals: Finals,
    specification: Specification,
    teacher: Mapping[str, float],
) -> str:
    """One sentence, whose options are enough for the model that it names as it was measured; a
    second one where not everyone was tried."""
    finalists, more = finals.finalists, ""
    if finals.untried:
        done = sum(one.trained is not None for one in finalists)
        more = (
            f" {done} were trained, and {finals.untried} more may meet it: a study with more "
            "--finalists, in another directory, trains more."
        )
    start = f"No model meets the specification ({specification})"
    measured = [one for one in finalists if one.last]
    needs = [(_needs(one, specification, teacher["metric"]), one) for one in measured]
    # For each set of limits the model that asks for the least; as few limits as can be.
    offers: dict[tuple[str, ...], tuple[float, str]] = {}
    for needed, one in needs:
        if not needed:
            continue
        names = tuple(name for name, _, _ in needed)
        excess = sum(share for _, share, _ in needed)
        if names not in offers or excess < offers[names][0]:
            options = " with ".join(option for _, _, option in needed)
            trained = "" if one.trained else ", not trained yet"
            offers[names] = excess, f"{options} would take trial {one.trial}{trained}"
    if offers:
        fewest = min(map(len, offers))
        told = [text for names, (_, text) in offers.items() if len(names) == fewest]
        return f"{start}: {'; '.join(told)}.{more}"
    refused = next((one for one in finalists if one.refused), None)
    if refused is not None:
        reason = refused.refused[0].rstrip(".")
        return (
            f"{start}: of {len(finalists)} that were compiled none passed, trial {refused.trial} "
            f"because: {reason}; give more --trials, or another --space.{more}"
        )
    return f"{start}: {_predicted(trials, specification)}.{more}"


def _needs(one: Finalist, specification: Specification, teacher: float) -> list[Need]:
    """Empty where no limit that gives way would do."""
    if one.trained is not None and not one.measured:
        return []  # what was trained could not be compiled or measured
    found: list[Need] = []
    measured = one.measured or ((one.screened,) if one.screened else ())
    limit, room, allowed = (
        specification.latency_ms,
        specification.memory_bytes,
        specification.max_loss,
    )
    if limit is not None and (upper := max(m.interval[1] for m in measured)) > limit:
        found.append(
            ("latency", upper / limit - 1, f"--latency {enough_latency(upper * _MARGIN)}")
        )
    if room is not None:
        peaks = [m.peak_bytes for m in measured if m.peak_bytes is not None]
        if len(peaks) < len(measured):
            return []  # no limit to a memory that nobody can tell will do
        if (peak := max(peaks)) > room:
            found.append(("memory", peak / room - 1, f"--memory {enough_memory(peak * _MARGIN)}"))
    if allowed is not None and one.metric is not None:
        loss = teacher - one.metric
        if loss > allowed:
            # In points, whose share of what is allowed may be anything.
            option = f"--max-loss {enough_loss(loss + _POINTS)}"
            found.append(("max-loss", (loss - allowed) / 100, option))
    return found


def _predicted(trials: Mapping[int, Trial], specification: Specification) -> str:
    """What to do where nothing was promising enough to be measured."""
    times = [t.outcome.latency for t in trials.values() if t.outcome.latency is not None]
    sizes = [t.outcome.memory for t in trials.values() if t.outcome.memory is not None]
    if not times or not sizes:
        return f"none of {len(trials)} trials could be built"
    options = []
    if specification.latency_ms is not None and min(times) > specification.latency_ms:
        options.append(f"--latency {enough_latency(min(times) * _MARGIN)}")
    if specification.memory_bytes is not None and min(sizes) > specification.memory_bytes:
        options.append(f"--memory {enough_memory(min(sizes) * _MARGIN)}")
    allow = f"allow {' and '.join(options)} or more, " if options else ""
    return (
        f"nothing was worth measuring; of {len(trials)} trials the fastest is predicted at "
        f"{min(times):.3g} ms and the smallest estimated at {shown_memory(min(sizes))}: {allow}"
        "give more --trials, or a --space with smaller sizes"
    )
