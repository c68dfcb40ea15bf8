"""Whole searches: killed in the finals and gone on with, answered, told, and impossible ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import canao
from canao.cli import app, main
from canao.compiler.models import load_model
from canao.errors import DoesNotFitError
from canao.search.predictor.measured import measured_program
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.recordings import of_store
from canao.search.program.derive import program_of
from canao.search.space.architecture import Architecture
from canao.search.study.folder import StudyFolder
from canao.search.study.result import StudyResult

from .whole import prepare, quickly, search

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from tests.search.study.whole import quickly, search
quickly(pytest.MonkeyPatch())
place, moment = sys.argv[1:]
def tell(text):
    print(text, flush=True)
    if text.startswith(moment):
        os.kill(os.getpid(), signal.SIGKILL)
search(Path(place), Path(place) / "study", max_loss="100%", progress=tell)
"""


@dataclass(frozen=True)
class Whole:
    """A study that was killed while its finalist was measured, and gone on with."""

    place: Path
    before: list[str]
    after: list[str]
    result: StudyResult

    @property
    def study(self) -> Path:
        return self.place / "study"

    def command(self, output: str, *more: str) -> list[str]:
        return [
            *("search", str(self.place / "model"), "--data", str(self.place / "data")),
            *("--space", str(self.place / "space.json"), "--trials", "2", "--finalists", "1"),
            *("--training", str(self.place / "training.json")),
            *("--predictor", str(self.place / "predictor.json")),
            *("-o", str(self.place / output), *more),
        ]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Whole:
    place = prepare(tmp_path_factory.mktemp("whole"))
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), "measuring trial"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    after: list[str] = []
    result = search(place, place / "study", max_loss="100%", progress=after.append)
    return Whole(place, ended.stdout.splitlines(), after, result)


def test_what_was_finished_before_a_kill_is_not_done_again(whole: Whole) -> None:
    for step in ("calibrating", "shared weights: step", "evaluating the teacher"):
        assert any(text.startswith(step) for text in whole.before), step
        assert not any(text.startswith(step) for text in whole.after), step
    again = [text for text in whole.after if "compiling" in text or "step" in text]
    assert again == []
    (measured,) = [text for text in whole.after if text.startswith("measuring")]
    assert measured.startswith("measuring trial")


def test_the_best_model_is_one_that_was_trained_and_measured(whole: Whole) -> None:
    best = whole.result.best
    assert best is not None
    assert best["passed"]
    assert best["trained"]
    assert 0 < best["latency_interval"][0] <= best["latency_ms"] <= best["latency_interval"][1]
    assert not best["emulated"]
    assert best["memory_bytes"] > 0
    assert best["trial"] in (0, 1)
    with canao.load(whole.study / "best.canao") as session:
        ids = [[2, 5, 6, 7, 3]]
        found = session(input_ids=ids)["logits"]
    model = load_model(best["model"]).module
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert json.loads((whole.study / "best.canao.numerics.json").read_text())


def test_every_measurement_is_kept_and_teaches(whole: Whole, tmp_path: Path) -> None:
    store = whole.study / "timings.db"
    records, left = of_store(store)
    assert left == 0
    # Three calibrate; the teacher, two candidates; the finalist twice.
    assert len(records) == 8
    best = whole.result.best
    assert best is not None
    searched = Architecture.from_json(best["architecture"])
    assert sum(record.architecture == searched for record in records) >= 3
    for record in records:
        assert not record.setting.emulated
        assert record.dispatches
        assert measured_program(record) == program_of(record.architecture)
    calibration = json.loads((whole.study / "calibration.json").read_text())
    known = LatencyPredictor.load(whole.study / "predictor.json")
    assert known.setting == records[0].setting
    assert calibration["predictor"]["setting"] == known.setting.to_json() | {"cpu_features": []}

    own = tmp_path / "own.db"
    done = CliRunner().invoke(
        app,
        ["bench", str(whole.study / "best.canao"), "--store", str(own), "--json"],
        catch_exceptions=False,
    )
    assert json.loads(done.stdout)["device"] == "local"
    (record,), _ = of_store(own)
    assert record.architecture == searched
    assert measured_program(record) == program_of(searched)


def test_the_command_answers_in_json_and_writes_a_page(whole: Whole, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, whole.command("study", "--max-loss", "100%", "--json"), catch_exceptions=False
    )
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found.keys() >= {"best", "pareto", "measured", "refused"}
    assert found == json.loads(json.dumps(whole.result.to_json()))
    assert {row["trial"] for row in found["measured"]} == {0, 1}
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        app, ["report", str(whole.study), "-o", str(page), "--json"], catch_exceptions=False
    )
    assert json.loads(done.stdout) == {"path": str(page)}
    text = page.read_text(encoding="utf-8")
    assert whole.result.best is not None
    assert f"Trial {whole.result.best['trial']}: accuracy" in text
    assert "--max-loss 100%" in text


def test_what_cannot_be_ends_with_exit_code_3(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["canao", *whole.command("small", "--memory", "1MB")])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 3
    told = capsys.readouterr()
    assert told.out == ""
    said = [text for text in told.err.splitlines() if text.startswith("canao: ")]
    (line,) = [text for text in said if not text.startswith("canao: warning: ")]
    assert "1 MB" in line  # what was asked for, and what to ask for
    assert "--memory " in line
    assert not (whole.place / "small" / "finalists").exists()
    with StudyFolder.open(whole.place / "small").timings.open("rb") as file:
        assert file.read(6) == b"SQLite"


def test_who_misses_the_limit_when_measured_ends_with_exit_code_3(whole: Whole) -> None:
    """The predictor promises so little that only the finals can tell."""
    with pytest.raises(DoesNotFitError) as refused:
        search(whole.place, whole.place / "fast", latency="1us")
    assert refused.value.exit_code == 3
    assert "latency at most 0.001 ms" in str(refused.value) or "0.001 ms" in str(refused.value)
    assert "--latency " in str(refused.value)
    result = StudyResult.from_json(json.loads((whole.place / "fast" / "result.json").read_text()))
    assert result.best is None
    assert {row["stage"] for row in result.refused} == {"compiled"}
    assert not (whole.place / "fast" / "best.canao").exists()
