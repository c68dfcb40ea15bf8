"""Who is at work, and whose work nobody does any more.

A worker holds a lock on a file of its own for as long as it lives; the system gives the lock
back whatever ends it. Who looks from another machine cannot see the lock: for him the worker
counts, every few seconds, and one whose count stands still is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any

from ...errors import CanaoError

__all__ = ["Heart", "Watch", "Worker"]

BEAT = 10.0
"""Seconds from one count of a worker to the next."""
PATIENCE = 90.0
"""Seconds after which a count that stands still means death."""


class Worker:
    """This process as a worker; its lock is in ``folder`` until `close`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self.home = _home(folder)
        self._lock = folder / f"{self.name}.lock"
        self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        # File systems without locks leave the count to tell.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Stop being one."""
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)

    def to_json(self) -> dict[str, Any]:
        """What others know it by."""
        return {"name": self.name, "home": self.home, "process": os.getpid()}

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Watch:
    """Tells which workers are dead, from a folder of locks and from their counts."""

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self._folder = folder
        self._home = _home(folder)
        self._patience = patience
        self._counts: dict[int, tuple[int, float]] = {}

    def is_dead(self, attempt: int, worker: Mapping[str, Any], count: int) -> bool:
        """Whether nobody is at ``attempt`` any more, of ``worker``, which counted to ``count``."""
        if worker.get("home") == self._home:
            held = self._is_held(str(worker.get("name")))
            if held is not None:
                return not held
        now = time.monotonic()
        known, since = self._counts.get(attempt, (-1, now))
        if count != known:
            self._counts[attempt] = (count, now)
            return False
        return now - since > self._patience

    def _is_held(self, name: str) -> bool | None:
        """Whether a worker's lock is held; None where the file system has no locks."""
        if not name.isalnum():
            return False
        try:
            descriptor = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(descriptor)


class Heart:
    """Counts, by calling ``beat`` with the next number, until the block is left.

    An error of ``beat`` ends the counting: the block will meet the same.
    """

    def __init__(self, beat: Callable[[int], None], seconds: float = BEAT) -> None:
        self._beat = beat
        self._seconds = seconds
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(self._seconds):
            number += 1
            try:
                self._beat(number)
            except Exception:
                return


def _home(folder: Path) -> str:
    """A text that is the same for processes which see the same locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        status = folder.stat()
    except OSError as error:
        raise CanaoError(f"{folder} cannot be looked at: {error.strerror or error}.") from error
    return f"{platform.node()}:{boot}:{status.st_dev}:{status.st_ino}"
