"""Files of a study that somebody changed: read as what they are, or one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.study import plots
from canao.search.study.closing import _teacher
from canao.search.study.finalist import Finalist
from canao.search.study.folder import StudyFolder
from canao.search.study.judging import calibration_of
from canao.search.study.report import write_study_report
from canao.search.study.result import StudyResult
from canao.search.study.specification import Specification
from tests.search.study.benches import Bench, begun, found, told

GIVEN = Specification(latency_ms=0.8, max_loss=20.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study with its result."""
    folder = begun(tmp_path_factory.mktemp("study") / "s", GIVEN, trials=12)
    trials, finals = found(folder, Bench(slower=1.1))
    folder.result.write_text(json.dumps(told(trials, finals, GIVEN).to_json()), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _without_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "script", lambda: "")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


HOSTILE = st.sampled_from(
    [None, True, -3, 0, 2**70, 1e308, float("nan"), "", "x", [], {}, [1], {"x": 1}, [[]], "\ud800"]
)


def changed(text: str, data: st.DataObject) -> str:
    """A JSON text with something replaced, left out or put in."""
    value = {"value": copy.deepcopy(json.loads(text))}
    path = data.draw(st.sampled_from([one for one in places(value) if one]))
    inside: Any = value
    for key in path[:-1]:
        inside = inside[key]
    if isinstance(inside, dict) and data.draw(st.booleans()):
        del inside[path[-1]]
    else:
        inside[path[-1]] = data.draw(HOSTILE)
    return json.dumps(value.get("value"))


def attempted(run: Any, name: str) -> None:
    try:
        run()
    except InputError as error:
        said = str(error)
    else:
        return
    assert name in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["study.json", "result.json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_reports_of_damaged_studies(
    whole: StudyFolder, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    file = whole.path / name
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(changed(text, data), encoding="utf-8")
        attempted(lambda: write_study_report(whole.path, tmp_path / "page.html"), name)
        file.write_bytes(data.draw(st.binary(max_size=20)))
        attempted(lambda: write_study_report(whole.path, tmp_path / "page.html"), name)
    finally:
        file.write_text(text, encoding="utf-8")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_finalists(whole: StudyFolder, tmp_path: Path, data: st.DataObject) -> None:
    file = next((whole.path / "finalists").glob("*/finalist.json"))
    place = tmp_path / "finalist.json"
    place.write_text(changed(file.read_text(encoding="utf-8"), data), encoding="utf-8")
    attempted(lambda: Finalist.read(tmp_path), "finalist.json is damaged")
    place.write_bytes(data.draw(st.binary(max_size=20)))
    attempted(lambda: Finalist.read(tmp_path), "finalist.json is damaged")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"asked": {}}, "model of asked is missing"),
        ({"asked": None}, "asked of a study must be an object"),
        ({"trials": -3}, "trials must be a positive whole number, not -3"),
        ({"trials": 0}, "trials must be"),
        ({"storage": 3}, "storage of a study must be a text"),
        ({"version": 1}, "is of version 1, and this canao reads 2"),
        ({"plan": {}}, "version of the plan must be 3"),
    ],
)
def test_damaged_plans(
    whole: StudyFolder, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    known = json.loads((whole.path / "study.json").read_text(encoding="utf-8"))
    (tmp_path / "study.json").write_text(json.dumps({**known, **changes}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        StudyFolder.open(tmp_path)
    assert words in str(caught.value)


def test_nested_without_end(tmp_path: Path) -> None:
    for text in ("[" * 10_000, "{", "\xff", '{"version": 1e999}', '{"a": 1, "a": 2}'):
        (tmp_path / "study.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"study.json is damaged .*: restore it from a copy"):
            StudyFolder.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "3", '{"metric": 1}'])
def test_what_is_made_again(whole: StudyFolder, text: str) -> None:
    for name, read in (
        ("calibration.json", lambda: calibration_of(whole)),
        ("teacher.json", lambda: _teacher(whole, "", *[None] * 4)),  # type: ignore[arg-type]
    ):
        file = whole.path / name
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"{name} is damaged \(.*\): .*again"):
            read()
        file.unlink()


def test_results_that_cannot_be(whole: StudyFolder) -> None:
    good = json.loads(whole.result.read_text(encoding="utf-8"))
    assert StudyResult.from_json(good).to_json() == good
    for changes, words in (
        ({"version": 1}, "version of a result is not 3"),
        ({"teacher": {}}, "name of the teacher is missing"),
        ({"best": {**good["best"], "trained": False}}, "the best model was not trained"),
        ({"teacher": None}, "the best model was not trained"),
        ({"measured": [{"trial": 1}]}, "architecture of a measured model is missing"),
        ({"measured": [{**good["best"], "latency_ms": 0}]}, "is not above 0"),
        ({"refused": [{"trial": 1, "digest": "", "stage": "", "reasons": 3}]}, "must be a list"),
    ):
        with pytest.raises(InputError, match=words):
            StudyResult.from_json({**good, **changes})
