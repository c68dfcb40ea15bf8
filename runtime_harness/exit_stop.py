"""How much memory a process had when it ended, told by the kernel: Linux stops it there.

Looking at a running process now and then misses what a short one, or one that is looked at late,
takes at last. ``ru_maxrss`` cannot tell either: it begins at the peak of the process that started
it (execve(2) keeps the larger of both), and a process that has trained a model is larger than any
tool. So the tool's process is traced (ptrace(2)), which costs nothing until it ends: it stops once
more while its memory is still there.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

__all__ = ["ExitStop", "resident_peak"]

_SEIZE, _CONT, _LISTEN = 0x4206, 7, 0x4208
_TRACE_EXIT = 0x40
_EVENT_EXIT, _EVENT_STOP = 6, 128
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def resident_peak(pid: int | str) -> int:
    """The peak resident memory of a process in bytes so far; 0 where nobody tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = _PEAK.search(status)
    return int(found[1]) * 1024 if found else 0


class ExitStop:
    """Traces a child of this process; each of its stops must be given to `stopped`, by the thread
    that made this. Where tracing is forbidden it does nothing, and ``peak`` stays None."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak: int | None = None
        """Bytes, once the process has ended."""
        _ptrace(_SEIZE, pid, _TRACE_EXIT)

    def stopped(self, status: int) -> None:
        """Let the process go on after a stop that `os.wait4` told of as ``status``."""
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_EXIT:
            self.peak = resident_peak(self._pid) or None
            _ptrace(_CONT, self._pid, 0)
        elif event == _EVENT_STOP and number in _STOPS:  # until SIGCONT, as if nobody traced it
            _ptrace(_LISTEN, self._pid, 0)
        else:
            _ptrace(_CONT, self._pid, 0 if event else number)


def _ptrace(request: int, pid: int, data: int) -> None:
    if sys.platform != "linux":
        return
    call = ctypes.CDLL(None).ptrace
    call.restype = ctypes.c_long
    call(*map(ctypes.c_long, (request, pid, 0, data)))
