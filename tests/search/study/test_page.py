"""A study's page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from canao.search.predictor.predictor import LatencyPredictor
from canao.search.study.baselines import baseline_rows
from canao.search.study.calibration import Calibration
from canao.search.study.commands import commands_of
from canao.search.study.folder import StudyFolder
from canao.search.study.report import write_study_report
from canao.search.study.running import run_trials
from canao.search.study.specification import Specification
from tests.search.study.benches import Bench, begun, found, told
from tests.search.study.problems import ASKED, judge, plan
from tests.search.study.test_calibration import REFERENCE, measure

RNG = np.random.default_rng(5)


def test_the_page_tells_everything_and_needs_no_network(tmp_path: Path) -> None:
    given = Specification(latency_ms=0.8, max_loss=20.0)
    folder = StudyFolder.begin(
        tmp_path / "s", plan(specification=given), trials=20, storage=None, asked=ASKED
    )
    place = tmp_path / "page.html"
    write_study_report(tmp_path / "s", place)  # before anything was tried
    assert sorted(file.name for file in folder.path.iterdir()) == ["study.json", "workers"]
    trials, finals = found(folder, Bench(slower=1.2))
    write_study_report(tmp_path / "s", place)
    assert "The study is not finished" in place.read_text(encoding="utf-8")
    result = told(trials, finals, given)
    folder.result.write_text(json.dumps(result.to_json()), encoding="utf-8")
    other = plan(specification=given, controller="random")
    run_trials(
        StudyFolder.begin(tmp_path / "o", other, trials=8, storage=None, asked=ASKED), judge
    )
    write_study_report(tmp_path / "s", place, [tmp_path / "o"])
    text = place.read_text(encoding="utf-8")
    assert result.best is not None
    for wanted in (
        f"Trial {result.best['trial']}: accuracy",
        "<svg viewBox",
        "random, seed 1",
        "tpe, seed 1",
        "--latency 0.8ms --max-loss 20%",
        "--split dev",
        "front of the trained",
        "front of the not trained, by estimate",
        "estimated front",
        result.refused[0]["reasons"][0],
        "were predicted to within 10 %",
        "&lt;b&gt;model",  # names are escaped
    ):
        assert wanted in text
    assert "not only their controllers differ" not in text
    third = plan(specification=Specification(latency_ms=0.7))
    run_trials(
        StudyFolder.begin(tmp_path / "q", third, trials=4, storage=None, asked=ASKED), judge
    )
    write_study_report(tmp_path / "s", place, [tmp_path / "q"])
    unlike = place.read_text(encoding="utf-8")
    assert "q (tpe, seed 1) has another specification than this study" in unlike
    assert "tpe, seed 1, q" in unlike
    assert "<script src" not in text
    assert "<link" not in text
    search, _, again = commands_of(folder, result)[1:]
    assert search.startswith("canao search '<b>model' --data data")
    assert "--data data --split dev --device local --seq-len" in again


def test_the_page_has_baselines_beside_the_predictor(tmp_path: Path) -> None:
    """They learn from what the predictor has learned from, and are tried on the finalists."""
    given = Specification(latency_ms=0.8)
    folder = begun(tmp_path / "s", given)
    trials, finals = found(folder, Bench())
    result = told(trials, finals, given)
    assert baseline_rows(folder, result) == []  # what the device is like is not here
    drawn = {one.digest: one for one in map(folder.plan.space.sample, [RNG] * 60)}
    records = [measure(Path(), "local", one)[0] for one in drawn.values()][:25]
    known = Calibration(
        predictor=LatencyPredictor.fit(records[:24]),
        reference_ms=REFERENCE,
        memory_base=1,
        memory_margin=0,
        records=tuple(records),
    )
    folder.calibration.write_text(json.dumps(known.to_json()), encoding="utf-8")
    rows = {row[0]: row[1:] for row in baseline_rows(folder, result)}
    assert list(rows) == ["predictor", "flops", "neural net", "look-up"]
    assert rows.pop("look-up") == ("no dispatch was timed", "", "", "")
    assert {row[0] for row in rows.values()} == {"24"}
    assert rows["predictor"][1] == "0.0%"  # the finalists took what was predicted
    folder.result.write_text(json.dumps(result.to_json()), encoding="utf-8")
    page = write_study_report(folder.path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>neural net</td>" in page
    # Of a predictor that learned elsewhere nothing here can teach others.
    elsewhere = dataclasses.replace(known, records=())
    folder.calibration.write_text(json.dumps(elsewhere.to_json()), encoding="utf-8")
    assert baseline_rows(folder, result)[1][:2] == ("simpler ones", "too few measurements")
