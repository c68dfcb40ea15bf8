"""``canao search`` where the model, its data and the device are not: what is around the trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import canao
from canao.cli import app
from canao.errors import DoesNotFitError, InputError, MissingDeviceError
from canao.runtime_harness import devices
from canao.runtime_harness.device import DeviceInfo
from canao.search import optimize as optimizing
from canao.search.study.folder import StudyFolder
from canao.search.study.report import write_study_report
from canao.search.study.running import opened
from canao.search.study.specification import Specification
from canao.search.study.trial import Trial
from tests.search.controllers.synthetic import small_space
from tests.search.study import problems
from tests.search.study.benches import Bench, found, told

CALIBRATED = {"calibrated": True}


class Absent:
    """A phone that is elsewhere."""

    def __init__(self, address: str) -> None:
        self.name = f"phone:{address}"

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name=self.name,
            description="a phone",
            available=False,
            emulated=False,
            targets=(),
            missing="nobody answers",
            remedy="Connect it.",
        )


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stubs of what takes a model, data or a device; trials are real."""
    devices.register("phone", Absent, replace=True)  # type: ignore[arg-type]
    task = SimpleNamespace(head="h", num_labels=2, lower_is_better=False, primary="accuracy")
    rows = SimpleNamespace(rows=[])
    replaced: dict[str, Any] = {
        "read_data": lambda *_: (task, rows, rows),
        "digest_of_rows": lambda _: "d",
        "digest_of_source": lambda _: "m",
        "load_model": lambda _: SimpleNamespace(module=None),
        "check_space": lambda *_: None,
        "_calibrated": lambda folder, ledger, *_: ledger.once(-1, lambda: CALIBRATED),
        "_check_possible": lambda *_: None,
        "judge_of": lambda *_: None,
        "problem_of": problems.judge,
        "hold": hold,
        "_PATIENCE": 0.5,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(optimizing, name, value)
    yield
    devices._factories.pop("phone")


def hold(folder: StudyFolder, trials: Mapping[int, Trial], *_: Any) -> Any:
    given = folder.plan.specification
    bench = Bench(slower=9 if given.latency_ms == 0.5 else 1)
    return told(trials, found(folder, bench)[1], given)


@pytest.fixture
def search(around: None, tmp_path: Path) -> Callable[..., Any]:
    def run(name: str, device: str = "local", **options: Any) -> Any:
        given = {"latency": "0.8ms", "controller": "random", "trials": 12, "target": "host"}
        return canao.optimize(
            "m",
            data="d",
            output=tmp_path / name,
            device=device,
            space=small_space(),
            **{**given, **options},
        )

    return run


def test_a_process_without_the_device_does_trials(
    search: Callable[..., Any], tmp_path: Path
) -> None:
    url = f"journal://{tmp_path}/shared.log"
    with pytest.raises(MissingDeviceError, match=r"The device phone:1 is not here.*calibration"):
        search("one", "phone:1", storage=url)
    folder = StudyFolder.open(tmp_path / "one")
    with opened(folder) as ledger:
        assert ledger.finished() == {}
        ledger.once(-1, lambda: CALIBRATED)  # where the device is
    with pytest.raises(MissingDeviceError, match=r"is at the finals: give the same command"):
        search("one", "phone:2", storage=url)
    with opened(folder) as ledger:
        assert sorted(ledger.finished()) == [-1, *range(12)]
        record = hold(folder, optimizing.run_trials(folder, problems.judge)).to_json()
        ledger.once(-1012, lambda: record)
    result = search("two", "phone:3", storage=url)
    assert result.best is not None
    assert result.to_json() == record


@pytest.mark.parametrize("options", [{"target": None}, {"storage": None}, {}])
def test_who_must_have_the_device(
    search: Callable[..., Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    given = {"storage": f"journal://{tmp_path}/shared.log", "target": "host", **options}
    names = "phone:1" if options else ["phone:1", "local"]
    with pytest.raises(MissingDeviceError, match=r"phone:1 is not here: nobody answers. Connect"):
        search("s", names, **given)
    assert not (tmp_path / "s").exists()
    if options:
        return
    with pytest.raises(InputError, match="does not run vulkan-mali"):
        search("s", "local", storage=given["storage"], target="vulkan-mali")


def test_programs_are_told_what_was_measured_though_nothing_fits(
    search: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        search("s", latency="0.5ms")
    found = caught.value.found
    assert found is not None
    assert found["best"] is None
    assert found["measured"]
    assert found["refused"]
    monkeypatch.setattr(
        "canao.search.optimize.optimize", lambda *_, **__: search("s", latency="0.5ms")
    )
    line = ["search", "m", "--data", "d", "-o", str(tmp_path / "s"), "--latency", "0.5ms"]
    done = CliRunner().invoke(app, [*line, "--json"])
    assert isinstance(done.exception, DoesNotFitError)
    assert json.loads(done.stdout) == found
    assert CliRunner().invoke(app, line).stdout == ""


def test_what_is_impossible_from_the_start_is_in_the_report(
    search: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = SimpleNamespace(memory_base=100_000_000)
    monkeypatch.setattr(optimizing, "problem_of", lambda *_, **__: None)
    monkeypatch.setattr(optimizing, "_calibrated", lambda *_: known)
    messages = {}
    for name, quick, small, given in (
        ("slow", 4571.0, 10, {"latency": "1ms"}),
        ("large", 0.1, 101_000_000, {"latency": None, "memory": "1MB"}),
    ):
        monkeypatch.setattr(optimizing, "fastest", lambda *_, q=quick, s=small: (q, s))
        monkeypatch.setattr(optimizing, "_check_possible", CHECK)
        with pytest.raises(DoesNotFitError) as caught:
            search(name, **given)
        messages[name] = str(caught.value)
        assert caught.value.found is not None
        assert caught.value.found["message"] == messages[name]
        page = write_study_report(tmp_path / name, tmp_path / "page.html").read_text("utf-8")
        assert "No architecture of the space can be hoped to take" in page
        assert "The study is not finished" not in page
    # What is advised can be given.
    latency = messages["slow"].split("--latency ")[1].split()[0]
    memory = messages["large"].split("--memory ")[1].split()[0]
    given = Specification.parse(latency=latency, memory=memory, max_loss=None)
    assert given.latency_ms == pytest.approx(5030)
    assert given.memory_bytes == 112_000_000


CHECK = optimizing._check_possible
