"""A study's own storage: one file that only grows, a line for each change.

The lines are those of Optuna's journals. Each has one field more, which Optuna passes over: the
digest of the line and, through that of the line before, of all lines above it.

    before   {"op_code":4,"study_id":0}
    after    {"op_code":4,"study_id":0,"canao:chain":"5c1f09e2a7d3b846"}

So a line that is missing, changed or moved is found by the next one. What is missing at the end
is found by a second file, ``NAME.end``: how many lines were written, and the digest of the last.
It is written after them: whoever is killed in between leaves more lines than it says, never
fewer. A line that was left unfinished is cut off before the next is written. The lock is the
system's, so whoever is killed gives it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from ...errors import CanaoError, InputError
from ...runtime_harness.bundle.atomic import os_errors, replace_file

__all__ = ["Journal", "JournalFile"]

_CHAIN = "canao:chain"
_FIRST = "0" * 16
_LINKED = re.compile(rb'(\{.+),"canao:chain":"([0-9a-f]{16})"\}\n', re.DOTALL)
_END = re.compile(rb" *([0-9]{1,12}) ([0-9a-f]{16})\n")


class Journal(JournalStorage):
    """Optuna's storage in a `JournalFile`; raises `InputError` for lines that are no changes of a
    study, though they were written as such."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        super().__init__(file)

    def _sync_with_backend(self) -> None:
        try:
            super()._sync_with_backend()
        except (CanaoError, OptunaError, OSError):
            raise
        except Exception as error:  # Optuna takes a line's fields for granted
            number = self._replay_result.log_number_read
            raise InputError(
                f"Line {number} of {self._file.path} is no change of a study "
                f"({type(error).__name__}): {self._file.remedy}"
            ) from error


class JournalFile(BaseJournalBackend):
    """Optuna's journal in the file ``path``, made if it is not there, unless ``look`` says that
    nothing shall be written.

    Every method raises `InputError` for a file that cannot be used, or is not as it was written.
    """

    def __init__(self, path: Path, *, look: bool = False) -> None:
        self.path = path
        self.remedy = (
            f"restore {path.name} and {path.name}.end from a copy, or begin another study."
        )
        self._end = path.with_name(f"{path.name}.end")
        # Where each line begins that was read, and the chain up to there.
        self._marks = [(0, _FIRST)]
        if not look:
            with os_errors(f"opening {path}"):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The changes from that number on; see Optuna's base class."""
        start = min(log_number_from, len(self._marks) - 1)
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
            bodies = self._verified(descriptor, start)
        for number, body in enumerate(bodies, start):
            if number >= log_number_from:
                yield self._read(body, number)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add changes; see Optuna's base class."""
        with self._locked(os.O_RDWR, fcntl.LOCK_EX) as descriptor:
            self._verified(descriptor, len(self._marks) - 1)
            place, chain = self._marks[-1]
            text = b""
            for log in logs:
                body = json.dumps(log, separators=(",", ":")).encode()[:-1]
                chain = _next(chain, body)
                text += body + f',"{_CHAIN}":"{chain}"}}\n'.encode()
            with os_errors(f"writing {self.path}"):
                try:
                    os.ftruncate(descriptor, place)
                    _write(descriptor, text, place)
                    os.fsync(descriptor)
                except BaseException:  # a full disk, Ctrl-C: all lines or none
                    os.ftruncate(descriptor, place)
                    raise
            with os_errors(f"writing {self._end}"):
                self._keep_end(len(self._marks) - 1 + len(logs), chain)

    @contextlib.contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        """The file's descriptor; -1 where there is no file, and none is to be made."""
        if flags == os.O_RDONLY and not self.path.exists():
            yield -1
            return
        with os_errors(f"opening {self.path}"):
            descriptor = os.open(self.path, flags | os.O_CLOEXEC)
        try:
            with os_errors(f"locking {self.path}"):
                fcntl.flock(descriptor, lock)
            yield descriptor
        finally:
            os.close(descriptor)

    def _verified(self, descriptor: int, start: int) -> list[bytes]:
        """The whole lines from number ``start`` on, which is known, each less its chain."""
        size = 0 if descriptor < 0 else os.fstat(descriptor).st_size
        if size < self._marks[-1][0]:
            self._check_end(_rest(descriptor, 0).count(b"\n") if size else 0)
        data = _rest(descriptor, self._marks[start][0]) if size else b""
        *lines, _ = data.split(b"\n")  # after the last one: it was never finished
        found = []
        for number, line in enumerate(lines, start):
            place, chain = self._marks[number]
            parts = _LINKED.fullmatch(line + b"\n")
            if parts is None or _next(chain, parts[1]) != parts[2].decode():
                raise InputError(
                    f"Line {number + 1} of {self.path} is damaged, or a line before it was "
                    f"removed or moved: {self.remedy}"
                )
            if number + 1 == len(self._marks):
                self._marks.append((place + len(line) + 1, parts[2].decode()))
            found.append(parts[1])
        self._check_end(start + len(lines))
        return found

    def _check_end(self, count: int) -> None:
        """Raise `InputError` where fewer lines are there than were written."""
        known = self._read_end()
        written = max(0 if known is None else known[0], len(self._marks) - 1)
        if count < written:
            raise InputError(
                f"Of {written} lines in {self.path} the last {written - count} are missing: "
                f"restore {self.path.name} and {self._end.name} from a copy, or delete "
                f"{self._end.name} to go on with what is left."
            )
        if known is not None and self._marks[known[0]][1] != known[1]:
            raise InputError(
                f"{self.path} holds other lines than were written, by {self._end.name}: "
                f"{self.remedy}"
            )

    def _read_end(self) -> tuple[int, str] | None:
        try:
            data = self._end.read_bytes()
        except FileNotFoundError:
            return None  # the file was copied alone, say: its lines tell of each other
        parts = _END.fullmatch(data)
        if parts is None:
            raise InputError(
                f"{self._end} is damaged: delete it to go on with what {self.path.name} holds."
            )
        return int(parts[1]), parts[2].decode()

    def _keep_end(self, count: int, chain: str) -> None:
        data = f"{count:>12} {chain}\n".encode()
        try:
            descriptor = os.open(self._end, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            replace_file(self._end, data)
            return
        try:
            _write(descriptor, data, 0)  # so few bytes are written at one stroke
        finally:
            os.close(descriptor)

    def _read(self, body: bytes, number: int) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(body + b"}")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"Line {number + 1} of {self.path} is damaged: {self.remedy}"
            ) from error
        return found


def _next(chain: str, body: bytes) -> str:
    return hashlib.sha256(chain.encode() + body).hexdigest()[:16]


def _rest(descriptor: int, place: int) -> bytes:
    parts = []
    while part := os.pread(descriptor, 1 << 20, place):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
