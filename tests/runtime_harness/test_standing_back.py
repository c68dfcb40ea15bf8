import os
import sys
import threading

import pytest

from canao.runtime_harness.standing_back import standing_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")


def test_the_policy_is_another_within_and_the_same_after() -> None:
    with standing_back():
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_an_error_leaves_the_policy_as_it_was() -> None:
    with pytest.raises(ValueError, match="wrong"), standing_back():
        raise ValueError("wrong")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_another_policy_is_left_alone() -> None:
    found = []

    def batch() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with standing_back():
            found.append(os.sched_getscheduler(0))
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=batch)
    thread.start()
    thread.join()
    assert found == [os.SCHED_BATCH, os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_other_threads_keep_theirs() -> None:
    inside, done, found = threading.Event(), threading.Event(), []

    def other() -> None:
        inside.wait()
        found.append(os.sched_getscheduler(0))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with standing_back():
        inside.set()
        done.wait()
    thread.join()
    assert found == [os.SCHED_OTHER]


def test_a_system_that_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with standing_back():
        pass
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
