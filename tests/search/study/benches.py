"""A stand-in for compiling, training and measuring, and studies that went through it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canao.errors import NumericsError
from canao.search.space.architecture import Architecture
from canao.search.study.finalist import Judged, Trained
from canao.search.study.finals import Finals, hold_finals
from canao.search.study.folder import StudyFolder
from canao.search.study.measured import Measured
from canao.search.study.pool import DevicePool
from canao.search.study.result import StudyResult, result_of
from canao.search.study.running import run_trials
from canao.search.study.specification import Specification
from canao.search.study.trial import Trial
from tests.search.controllers.synthetic import accuracy_of, latency_of
from tests.search.study.problems import judge, study

TEACHER = 75.0
HERE = {"local": "0" * 16}


def measured(latency: float, **changes: Any) -> Measured:
    found = Measured(
        device="local",
        target="host",
        latency_ms=latency,
        interval=(latency * 0.98, latency * 1.02),
        p90_ms=latency * 1.1,
        relative=latency / 5,
        peak_bytes=6_000_000,
        emulated=False,
        stable=True,
        reason="the median is known to 2%",
        fingerprint="0" * 16,
    )
    return dataclasses.replace(found, **changes)


class Bench:
    """Sums over sizes; counts what it is asked for. ``slower``: measured over predicted."""

    def __init__(self, slower: float = 1.0, broken: tuple[int, ...] = ()) -> None:
        self.slower = slower
        self.broken = broken
        self.diverging: tuple[int, ...] = ()
        self.worse = 0.0  # on the device than in PyTorch
        self.gains: dict[str, float] = {}
        self.fingerprint = HERE["local"]
        self.done: list[str] = []
        self._architectures: dict[Path, Architecture] = {}

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        self.done.append(f"inherit {architecture.digest}")
        self._architectures[folder / "inherited.canao"] = architecture
        return folder / "inherited.canao"

    def adapt(self, architecture: Architecture) -> float:
        self.done.append(f"adapt {architecture.digest}")
        if architecture.seq_len in self.diverging:
            raise NumericsError("The loss is not finite.")
        return accuracy_of(architecture) + self.gains.get(architecture.digest, 0.75)

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        self.done.append(f"train {architecture.digest}")
        metric = accuracy_of(architecture) + 1.5
        return Trained(
            directory=str(folder / "model"),
            name="accuracy",
            metric=metric,
            interval=(metric - 1, metric + 1),
            held=metric - 0.5,
            params=10,
            flops=20,
            bytes=30,
            seconds=1.0,
        )

    def compile(
        self, architecture: Architecture, trained: Trained, folder: Path
    ) -> tuple[Path, Architecture]:
        self.done.append(f"compile {architecture.digest}")
        if len(architecture.layers) in self.broken:
            raise NumericsError("The outputs differ.")
        self._architectures[folder / "model.canao"] = architecture
        return folder / "model.canao", architecture

    def measure(self, bundle: Path, device: str) -> Measured:
        self.done.append(f"measure {bundle.name}")
        latency = self.slower * latency_of(self._architectures[bundle])
        return measured(latency, fingerprint=self.fingerprint)

    def evaluate(self, architecture: Architecture, bundle: Path, device: str) -> Judged:
        self.done.append(f"evaluate {bundle.name}")
        metric = accuracy_of(architecture) + 1.5 - self.worse
        return Judged(device=device, metric=metric, interval=(metric - 1, metric + 1))

    def count(self, what: str) -> int:
        return sum(entry.startswith(what) for entry in self.done)


def pool() -> DevicePool[Any]:
    return DevicePool(["local"], available=lambda _: True, pause=0.0)


def found(
    folder: StudyFolder, bench: Bench, here: Mapping[str, str] = HERE
) -> tuple[Mapping[int, Trial], Finals]:
    trials = run_trials(folder, judge)
    finals = hold_finals(
        folder, trials, bench, pool(), teacher=TEACHER, here=here, tell=lambda _: None
    )
    return trials, finals


def told(trials: Mapping[int, Trial], finals: Finals, given: Specification) -> StudyResult:
    teacher = {
        "name": "accuracy",
        "metric": TEACHER,
        "interval": [74.0, 76.0],
        "measured": measured(3.0).to_json(),
    }
    return result_of(
        trials,
        finals,
        specification=given,
        teacher=teacher,
        study="s",
        machine="m",
        seconds=1.0,
    )


def begun(path: Path, given: Specification, trials: int = 30, **changes: object) -> StudyFolder:
    return study(path, trials, specification=given, controller="random", **changes)
