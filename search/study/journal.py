"""A study's own storage: one file that only grows, a line for each change.

The lock is the system's, so whoever is killed gives it back; and a line that a killed process
left unfinished is cut off before the next is written.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from ...errors import InputError
from ...runtime_harness.bundle.atomic import os_errors

__all__ = ["JournalFile"]


class JournalFile(BaseJournalBackend):
    """Optuna's journal in the file ``path``, made if it is not there.

    Raises `InputError` for a file that cannot be used, or that has lines which are no JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = [0]  # where each line begins that was read
        with os_errors(f"opening {path}"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The changes from that number on; see Optuna's base class."""
        known = min(log_number_from, len(self._offsets) - 1)
        with self._path.open("rb") as file:
            file.seek(self._offsets[known])
            for number, line in enumerate(file, known):
                if not line.endswith(b"\n"):
                    return  # it is being written, or never will be
                if number + 1 == len(self._offsets):
                    self._offsets.append(self._offsets[number] + len(line))
                if number >= log_number_from:
                    yield self._read(line, number)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add changes; see Optuna's base class."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _whole_lines(file.fileno())
            try:
                os.ftruncate(file.fileno(), end)
                _write(file.fileno(), text.encode(), end)
                os.fsync(file.fileno())
            except BaseException:  # a full disk, Ctrl-C: all lines or none
                os.ftruncate(file.fileno(), end)
                raise

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise InputError(
            f"Line {number + 1} of {self._path} is damaged: restore the study, or begin another."
        )


def _whole_lines(descriptor: int) -> int:
    """Where the last line that is whole ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 4096)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write(descriptor: int, data: bytes, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
