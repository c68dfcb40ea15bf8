"""The times of single dispatches, from the events that IREE's profiler records."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..errors import DeviceError
from .device import DispatchTime
from .tools import run_tool, tool_directory

__all__ = ["median_dispatches", "read_events"]

_TYPES = ("host_dispatch_event", "dispatch_event")
_DECODING_SECONDS = 120.0


def read_events(recording: Path) -> list[DispatchTime]:
    """Return every dispatch in a recording, in the order of execution; empty if it has none.

    Raises DeviceError if the recording cannot be read.
    """
    if not recording.exists():
        return []
    # A recording reads the same everywhere, so this machine's tool will do for an ARM one.
    command = [str(tool_directory() / "iree-profile"), "dispatch", "--format=jsonl"]
    done = run_tool(
        [*command, "--dispatch_events", str(recording)],
        what="reading the recorded profile",
        timeout=_DECODING_SECONDS,
    )
    events: list[tuple[int, int, int, DispatchTime]] = []
    try:
        for line in done.stdout.splitlines():
            row = json.loads(line)
            if row["type"] in _TYPES and row["valid"] and row.get("duration_ns") is not None:
                place = (row["submission_id"], row["command_index"], row["event_id"])
                time = DispatchTime(name=row["key"], ms=row["duration_ns"] / 1e6)
                events.append((*place, time))
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError("the recorded profile is not one canao can read") from error
    return [event[-1] for event in sorted(events, key=lambda event: event[:-1])]


def median_dispatches(events: Sequence[DispatchTime], inferences: int) -> list[DispatchTime]:
    """Return the dispatches of one inference, each with its median time over several.

    The first of several inferences is left out: it warms up. Raises DeviceError if the
    inferences did not all execute the same dispatches.
    """
    count, rest = divmod(len(events), inferences)
    rounds = [events[index * count : (index + 1) * count] for index in range(inferences)]
    names = [[event.name for event in one] for one in rounds]
    if rest or any(other != names[0] for other in names):
        raise DeviceError(
            "the profiled calls did not all execute the same dispatches, so their times "
            "cannot be told apart"
        )
    counted = rounds[1:] or rounds
    return [
        DispatchTime(name=name, ms=statistics.median(one[index].ms for one in counted))
        for index, name in enumerate(names[0])
    ]
