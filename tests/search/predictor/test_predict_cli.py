"""``canao predict``: trained, tried and shown, and one sentence for each wrong call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from canao.cli import app
from canao.errors import CanaoError
from canao.search.predictor.records import Record
from canao.search.space.architecture import KINDS, Architecture

from .devices import SPACE, Formula, drawn, measured

KEYS = {
    "spearman", "kendall", "mape", "within_5", "within_10", "coverage_90", "n_train", "n_test",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measurements of two settings in one file."""
    path = tmp_path_factory.mktemp("recorded") / "some.jsonl"
    records = [*measured(drawn(220)[:70]), *measured(drawn(220)[:70], Formula(threads=2))]
    path.write_text("".join(json.dumps(one.to_json()) + "\n" for one in records))
    return path


def run(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert isinstance(done.exception, CanaoError), done.output
    assert done.exception.exit_code == 2
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_a_predictor_is_trained_tried_adapted_and_shown(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    trained = run("train", "--store", data, "--seed", 3, "-o", one)
    assert trained.keys() >= KEYS | {"path", "baselines", "setting"}
    assert (trained["n_train"], trained["n_test"]) == (42, 28)
    assert names(trained) == {"flops", "neural net"}  # nothing tells times of dispatches
    assert trained["baselines"]["flops"]["mape"] > trained["mape"]
    assert 0.9 < trained["spearman"] <= 1
    assert 0.7 < trained["coverage_90"] <= 1
    # The same seed tries the same architectures, which the written one has not seen.
    tried = run("eval", "--store", data, "--predictor", one)
    assert {key: tried[key] for key in KEYS} == {key: trained[key] for key in KEYS}
    # The baselines learn from what the predictor has learned from.
    assert tried["baselines"]["flops"] == trained["baselines"]["flops"]
    assert names(tried) == {"flops", "neural net"}

    adapted = run(
        "train", "--store", data, "--threads", 2, "--adapt", one, "--samples", 15, "-o", two
    )
    assert (adapted["n_train"], adapted["n_test"]) == (15, 55)
    assert adapted["setting"]["threads"] == 2
    assert adapted["spearman"] > 0.9
    assert adapted["baselines"]["neural net"]["n_train"] == 15
    tried = run("eval", "--store", data, "--threads", 2, "--adapt", one, "--samples", 15)
    assert tried["baselines"]["flops"] == adapted["baselines"]["flops"]

    page = tmp_path / "page.html"
    shown = run("show", two, "--store", data, "--threads", 2, "-o", page)
    assert shown["path"] == str(page)
    assert any("Adapted from" in text for text in shown["facts"])
    assert names(shown) == {"flops", "neural net"}
    text = page.read_text()
    assert "neural net" in text
    assert "http-equiv" not in text
    assert "<script src" not in text
    assert "product/f32" in text
    assert "measuring again" not in text  # nothing was

    everything = run("train", "--store", data, "--all", "-o", one)
    assert everything["learned_from"] == 70
    assert everything["n_train"] == 42


def test_training_without_a_file_tells_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("train", "--store", data, "--seed", 3)
    assert found.keys() >= KEYS
    assert found["path"] is None
    assert list(tmp_path.iterdir()) == []


def test_baselines_that_nothing_here_teaches(data: Path, tmp_path: Path) -> None:
    """The predictor learned elsewhere: the table says so."""
    one = tmp_path / "one.json"
    run("train", "--store", data, "-o", one)
    records = [json.loads(line) for line in data.read_text().splitlines()][:70]
    learned = set(json.loads(one.read_text())["trained_on"])
    fresh = [r for r in records if Record.from_json(r).architecture.digest not in learned]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(one) + "\n" for one in fresh))
    assert run("eval", "--store", other, "--predictor", one)["baselines"] == {}
    done = CliRunner().invoke(
        app, ["predict", "eval", "--store", str(other), "--predictor", str(one)]
    )
    assert "too few" in " ".join(done.stdout.split())


def names(found: dict[str, Any]) -> set[str]:
    return set(found["baselines"])


def test_what_to_measure_next_is_listed(data: Path, tmp_path: Path) -> None:
    one, chosen, space = (tmp_path / name for name in ("one.json", "next.jsonl", "space.json"))
    space.write_text(json.dumps(SPACE.to_json()), encoding="utf-8")
    common = ("next", "--space", space, "--count", 5)
    found = run(*common, "--store", data, "-o", chosen)
    architectures = [Architecture.from_json(row["architecture"]) for row in found["architectures"]]
    assert len({row["digest"] for row in found["architectures"]}) == 5
    assert not {*architectures} & {*drawn(220)[:70]}  # those were measured
    assert all(SPACE.contains(architecture) for architecture in architectures)
    assert found["setting"]["threads"] == 1
    lines = chosen.read_text(encoding="utf-8").splitlines()
    assert [Architecture.from_json(json.loads(line)) for line in lines] == architectures
    # For another setting, with measurements there and without.
    run("train", "--store", data, "-o", one)
    other = run(*common, one, "--threads", 2)
    assert other["setting"]["threads"] == 2
    more = run(*common, one, "--store", data, "--threads", 2)
    assert other["architectures"] != more["architectures"] != found["architectures"]
    # Without a space: sub-networks of the packaged model, in what the target can do.
    few = run("next", one, "--target", "arm64", "--count", 1)
    layers = few["architectures"][0]["architecture"]["layers"]
    forms = [layer[kind]["precision"] for layer in layers for kind in KINDS]
    assert {*forms} <= {"f32", "int8"}
    done = CliRunner().invoke(app, [*map(str, ("predict", *common, one))])
    assert "GFLOP" in done.stdout, done.output
    assert "--count must be" in refused("next", "--count", "0")
    assert "cannot be read" in refused("next", tmp_path / "none.json")


def test_it_tells_people_what_it_found(data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["predict", "show", "--store", str(data), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert "Learned from 42 architectures" in done.stdout
    assert "neural" in done.stdout
    assert "Spearman" in done.stdout
    assert page.exists()


def test_wrong_calls_are_one_sentence(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    assert "no real measurements" in refused("eval", "--store", data, "--threads", 3)
    assert "of toaster" in refused("eval", "--store", data, "--device", "toaster")
    assert "protocol 7" in refused("eval", "--store", data, "--protocol", "7")
    assert "There are no emulated" in refused("eval", "--store", data, "--emulated")
    assert "no timing store" in refused("eval", "--store", tmp_path / "none.db")
    assert "cannot be read" in refused("eval", "--store", tmp_path / "none.jsonl")
    assert "cannot be read" in refused("eval", "--store", data, "--predictor", out)
    assert "must be an .html" in refused("show", "--store", data, "-o", out)
    assert "give one" in refused("eval", "--store", data, "--predictor", out, "--adapt", out)
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(one.to_json()) + "\n" for one in measured(drawn(6))))
    assert "split needs" in refused("train", "--store", few, "-o", out)
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({**measured(drawn(6))[0].to_json(), "architecture": None}))
    assert "line 1: The architecture must be" in refused("eval", "--store", bare)
    assert not out.exists()
