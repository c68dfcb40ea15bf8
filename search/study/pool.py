"""Devices and the jobs that wait for them: one job a device at a time, on this whole machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from ...errors import CanaoError, DeviceError, MissingDeviceError
from ...paths import cache_dir

__all__ = ["DevicePool"]

T = TypeVar("T")
_ATTEMPTS = 3


class DevicePool(Generic[T]):
    """Devices of one kind, by name.

    ``available`` tells whether a device is there; ``pause``: seconds before a device that failed
    is asked again.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        available: Callable[[str], bool],
        pause: float = 2.0,
    ) -> None:
        self._devices = tuple(devices)
        self._available = available
        self._pause = pause

    def run(self, jobs: Sequence[Callable[[str], T]]) -> list[T | CanaoError]:
        """The result of each job, which is called with the device's name.

        A device that is lost gives its job back, and another one, or it itself once it is there
        again, takes it. A job that three attempts could not finish has the error as its result,
        and so has one that raises another of canao's errors. Raises `DeviceError` where all
        devices are lost.
        """
        shared = _Shared[T](jobs)
        threads = [
            threading.Thread(target=self._serve, args=(device, shared), daemon=True)
            for device in self._devices
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if shared.failure is not None:
            raise shared.failure
        if shared.lost and any(result is None for result in shared.results):
            names = ", ".join(self._devices)
            raise DeviceError(
                f"Every device was lost ({names}): {shared.lost}; the study goes on, by the same "
                "command, once one is back."
            )
        return [result for result in shared.results if result is not None]

    def _serve(self, device: str, shared: _Shared[T]) -> None:
        try:
            while (place := shared.take()) is not None:
                with _alone(device):
                    result = _tried(shared.jobs[place], device)
                if not isinstance(result, (DeviceError, MissingDeviceError)):
                    shared.done(place, result)
                    continue
                shared.back(place, result)
                time.sleep(self._pause)
                if not self._available(device):
                    shared.lost = str(result).rstrip(".")
                    return
        except BaseException as error:
            shared.fail(error)


class _Shared(Generic[T]):
    """What the threads share: what waits, what is done."""

    def __init__(self, jobs: Sequence[Callable[[str], T]]) -> None:
        self.jobs = jobs
        self.results: list[T | CanaoError | None] = [None] * len(jobs)
        self.lost = ""
        self.failure: BaseException | None = None
        self._attempts = [0] * len(jobs)
        self._waiting = deque(range(len(jobs)))
        self._open = len(jobs)
        self._changed = threading.Condition()

    def take(self) -> int | None:
        """The next job; None once all are done. Waits while others may give one back."""
        with self._changed:
            while not self._waiting and self._open and self.failure is None:
                self._changed.wait(0.2)
            if self.failure is not None or not self._waiting:
                return None
            return self._waiting.popleft()

    def done(self, place: int, result: T | CanaoError) -> None:
        """Keep a result."""
        with self._changed:
            self.results[place] = result
            self._open -= 1
            self._changed.notify_all()

    def back(self, place: int, error: CanaoError) -> None:
        """A job that its device lost."""
        with self._changed:
            self._attempts[place] += 1
            if self._attempts[place] < _ATTEMPTS:
                self._waiting.appendleft(place)
                self._changed.notify_all()
                return
        self.done(place, error)

    def fail(self, error: BaseException) -> None:
        """End everything."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()


def _tried(job: Callable[[str], T], device: str) -> T | CanaoError:
    try:
        return job(device)
    except CanaoError as error:
        return error


@contextlib.contextmanager
def _alone(device: str) -> Iterator[None]:
    """Hold a device against other studies on this machine."""
    name = re.sub(r"[^A-Za-z0-9.-]", "_", device)
    path = cache_dir("devices") / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise CanaoError(
                f"{path} cannot be locked ({error.strerror or error}), so nothing keeps other "
                f"searches off {device}: let CANAO_CACHE_DIR name a directory whose file system "
                "has locks."
            ) from error
        yield
    finally:
        os.close(descriptor)
