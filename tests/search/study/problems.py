"""Judges without models, for studies in other processes too: what they do is in the environment.

``CANAO_TEST_SECONDS``: how long a trial takes. ``CANAO_TEST_LOG``: a file that gets a line for
each evaluation. ``CANAO_TEST_TOGETHER``: how many processes must have begun one before any ends.
``CANAO_TEST_FATAL``: the number of hidden units at which the process is killed.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from canao.errors import DeviceError
from canao.search.controllers import Outcome
from canao.search.space.architecture import Architecture
from canao.search.study.folder import StudyFolder
from canao.search.study.plan import StudyPlan
from canao.search.study.specification import Specification
from canao.search.study.trial import Finding
from tests.search.controllers.synthetic import accuracy_of, latency_of, small_space

__all__ = ["ASKED", "Judge", "faulty", "judge", "plan", "study", "unreachable"]


ASKED = {
    "model": "<b>model",
    "data": "data",
    "teacher": None,
    "dev": None,
    "split": "dev",
    "metric": None,
    "predictor": None,
}


class Judge:
    """Sums over sizes; what is far too slow has no accuracy."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit

    def evaluate(self, architecture: Architecture) -> tuple[Finding | None, Outcome]:
        if log := os.environ.get("CANAO_TEST_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{architecture.digest} {os.getpid()}\n")
            together = int(os.environ.get("CANAO_TEST_TOGETHER", "1"))
            end = time.monotonic() + 60
            while len(_processes(Path(log))) < together and time.monotonic() < end:
                time.sleep(0.01)
        if os.environ.get("CANAO_TEST_FATAL") == str(architecture.hidden):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("CANAO_TEST_SECONDS", "0")))
        latency, memory = latency_of(architecture), architecture.costs().bytes
        over = () if self._limit is None else (latency / self._limit - 1,)
        slow = self._limit is not None and latency > 1.3 * self._limit
        accuracy = None if slow else accuracy_of(architecture)
        finding = Finding(
            latency_ms=latency,
            latency_interval=(latency / 1.3, latency * 1.3),
            memory_bytes=memory,
            accuracy=accuracy,
            accuracy_interval=None if accuracy is None else (accuracy - 1, accuracy + 1),
            accuracy_kind="" if slow else "shared",
        )
        reason = "predicted to be too slow" if slow else ""
        return finding, Outcome(
            accuracy=accuracy, latency=latency, memory=memory, violations=over, reason=reason
        )


def _processes(log: Path) -> set[str]:
    return {line.split()[-1] for line in log.read_text(encoding="utf-8").splitlines()}


def judge(folder: StudyFolder) -> Judge:
    return Judge(folder.plan.specification.latency_ms)


def unreachable(folder: StudyFolder) -> Judge:
    raise DeviceError("The device is gone.")


def faulty(folder: StudyFolder) -> Judge:
    raise ZeroDivisionError("a fault of ours")


def plan(**changes: object) -> StudyPlan:
    fields: dict[str, object] = {
        "model": "m",
        "data": "d",
        "dev": "e",
        "metric": "accuracy",
        "devices": ("local",),
        "target": "host",
        "threads": 1,
        "space": small_space(),
        "specification": Specification(latency_ms=0.8),
        "controller": "tpe",
        "seed": 1,
        "finalists": 2,
    }
    return StudyPlan(**{**fields, **changes})  # type: ignore[arg-type]


def study(path: Path, trials: int, storage: str | None = None, **changes: object) -> StudyFolder:
    return StudyFolder.begin(path, plan(**changes), trials=trials, storage=storage, asked=ASKED)
