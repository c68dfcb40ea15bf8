"""A time limit for calls that cannot be stopped: they are given up, not ended."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Expired", "Watchdog"]

T = TypeVar("T")


class Expired(Exception):
    """The call did not return in time. It still runs, so its thread is lost."""


class Watchdog:
    """Runs calls one at a time in one thread of its own, and stops waiting when time is up.

    After ``Expired`` the object is of no further use. The thread is a daemon: a call that never
    returns does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="canao-session", daemon=True)
        self._given_up: threading.Event | None = None
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a call that was given up is still running."""
        return self._given_up is not None and not self._given_up.is_set()

    def run(self, call: Callable[[], T], timeout: float) -> T:
        """Return what ``call`` returns or raise what it raises, within ``timeout`` seconds."""
        item = _Call(call)
        self._calls.put(item)
        if not item.done.wait(timeout):
            self._given_up = item.done
            raise Expired
        if item.error is not None:
            raise item.error
        result: T = item.value
        return result

    def close(self) -> None:
        """End the thread once it is idle; if it is now, wait for that a moment."""
        self._calls.put(None)
        if not self.is_busy and threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            item.settle()
            # Not held until the next call: results may be large, and own device memory.
            del item


class _Call:
    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:  # handed over to the thread that waits
            self.error = error
        finally:
            self.done.set()
