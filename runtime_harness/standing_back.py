"""A caller that waits for a pool of workers must not push one of them off its core.

A worker that finishes a call wakes the caller before it is through with telling everyone. Linux
likes to run the woken thread on the waker's core at once; IREE's wait then spins until the worker,
which has no core, has told the rest. On two cores that took a millisecond of most calls. A thread
under ``SCHED_BATCH`` does not preempt others when it wakes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["standing_back"]


@contextlib.contextmanager
def standing_back() -> Iterator[None]:
    """Within it, the calling thread preempts nobody when it wakes; then it is as it was.

    Does nothing on systems other than Linux, for threads whose policy is not the usual one, and
    where the system does not allow it.
    """
    if not hasattr(os, "SCHED_BATCH") or not _change(os.SCHED_OTHER, os.SCHED_BATCH):
        yield
        return
    try:
        yield
    finally:
        _change(os.SCHED_BATCH, os.SCHED_OTHER)


def _change(present: int, wanted: int) -> bool:
    """Give the calling thread the policy ``wanted`` if it has ``present``."""
    try:
        if os.sched_getscheduler(0) != present:
            return False
        os.sched_setscheduler(0, wanted, os.sched_param(0))
    except OSError:
        return False
    return True
