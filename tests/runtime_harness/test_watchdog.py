from __future__ import annotations

import threading

import pytest

from canao.runtime_harness.watchdog import Expired, Watchdog


def test_results_and_errors_come_through() -> None:
    watchdog = Watchdog()
    assert watchdog.run(lambda: 7, 5) == 7
    with pytest.raises(KeyError, match="x"):
        watchdog.run(lambda: {}["x"], 5)
    name = watchdog.run(lambda: threading.current_thread().name, 5)
    watchdog.close()
    assert name not in {thread.name for thread in threading.enumerate()}


def test_a_call_out_of_time_is_given_up() -> None:
    watchdog, gate = Watchdog(), threading.Event()
    with pytest.raises(Expired):
        watchdog.run(gate.wait, 0.01)
    gate.set()
    watchdog.close()


def test_it_can_be_closed_from_its_own_thread() -> None:
    watchdog = Watchdog()
    watchdog.run(watchdog.close, 5)


def test_a_call_that_was_given_up_is_busy_until_it_returns() -> None:
    watchdog, gate = Watchdog(), threading.Event()
    assert not watchdog.is_busy
    watchdog.run(lambda: None, 5)
    with pytest.raises(Expired):
        watchdog.run(gate.wait, 0.01)
    assert watchdog.is_busy
    watchdog.close()
    gate.set()
    watchdog._thread.join(5)
    assert not watchdog.is_busy
