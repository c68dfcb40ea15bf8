"""One job a device at a time; lost devices return theirs."""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from collections.abc import Callable

import pytest

from canao.errors import CanaoError, DeviceError, InputError
from canao.search.study.pool import DevicePool


def test_a_device_that_is_lost_returns_its_job() -> None:
    lost, log, lock = set(), [], threading.Lock()

    def job(number: int) -> Callable[[str], str]:
        def run(device: str) -> str:
            with lock:
                log.append((number, device))
            time.sleep(0.01)
            if device == "bad" and number >= 1:
                lost.add("bad")
                raise DeviceError("bad was lost")
            return f"{number} on {device}"

        return run

    devices = DevicePool[str](["bad", "good"], available=lambda name: name not in lost, pause=0)
    results = devices.run([job(number) for number in range(6)])
    assert [str(result)[0] for result in results] == list("012345")
    assert sum(device == "bad" for _, device in log) <= 2

    alone = DevicePool[str](["bad"], available=lambda name: False, pause=0)
    with pytest.raises(DeviceError, match=r"Every device was lost \(bad\): bad was lost; the"):
        alone.run([job(2)])
    with pytest.raises(ZeroDivisionError):
        alone.run([lambda device: str(1 // 0)])


def test_a_job_that_loses_devices_ends() -> None:
    calls = []

    def fatal(device: str) -> str:
        calls.append(device)
        raise DeviceError("it hangs")

    def wrong(device: str) -> str:
        raise InputError("no such target")

    devices = DevicePool[str](["a", "b"], available=lambda name: True, pause=0)
    first, second, third = devices.run([fatal, wrong, lambda device: "fine"])
    assert isinstance(first, DeviceError)
    assert isinstance(second, CanaoError)
    assert third == "fine"
    assert len(calls) == 3


def test_one_job_a_device_at_a_time() -> None:
    """Also where two studies on this machine want the same one."""
    active, most, lock = [0], [0], threading.Lock()

    def job(device: str) -> str:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.02)
        with lock:
            active[0] -= 1
        return device

    studies = [DevicePool[str](["phone:1"], available=lambda name: True) for _ in range(2)]
    threads = [threading.Thread(target=one.run, args=([job] * 3,)) for one in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_device_that_cannot_be_held_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    devices = DevicePool[str](["a"], available=lambda name: True, pause=0)
    with pytest.raises(CanaoError, match="keeps other searches off a: let CANAO_CACHE_DIR name"):
        devices.run([lambda device: "ran"])
