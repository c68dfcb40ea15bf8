from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from canao.compiler.compression.recipe import PrecisionRule, Recipe
from canao.compiler.compression.saving import save_compressed
from canao.compiler.models import load_model
from canao.errors import InputError, MissingDeviceError
from canao.runtime_harness.profile import ProfileRow
from canao.search.compress_result import CompressionResult, Difference, ModelFacts
from canao.search.gain import NARROW, TargetGain, check_targets, measure_gains
from canao.search.gain_reason import explain
from canao.search.report import (
    comparison,
    report_notes,
    report_warnings,
    write_report,
)
from canao.search.training import TrainingOptions
from canao.search.training.teacher import load_tokenizer
from tests.search.support import save_model


def facts(flops: int, metric: float, spread: float = 1.0) -> ModelFacts:
    return ModelFacts(
        params=flops // 2,
        flops=flops,
        bytes=2 * flops,
        metric=metric,
        metric_name="accuracy",
        interval=(metric - spread, metric + spread),
        metrics={"accuracy": metric},
        n=100,
    )


def result(**changes: Any) -> CompressionResult:
    training = {
        **{"rows": 90, "held_rows": 10, "steps": 20, "planned_steps": 20, "seconds": 61.0},
        **{"best": 80.5, "best_step": 10, "padding": {"saved": 0.25}, "bf16": True},
        "processes": 1,
    }
    made = CompressionResult(
        before=facts(4_000_000, 90.0),
        after=facts(1_000_000, 88.0),
        output=Path("out"),
        teacher=Path("teacher"),
        data="own",
        seq_len=32,
        recipe={"version": 1, "ffn": 7},
        options=TrainingOptions().to_json(),
        training={"teacher": None, "student": training},
    )
    return dataclasses.replace(made, **changes)


def gain(times: float, reason: str = "", **changes: Any) -> TargetGain:
    made = TargetGain(
        target="host",
        device="local",
        precision="f32",
        threads=1,
        seq_len=32,
        emulated=False,
        ms={"teacher": times, "compressed": 1.0},
        gain=times,
        interval=(times - 0.1, times + 0.1),
        whole=times,
        whole_interval=(times - 0.1, times + 0.1),
        weights={"teacher": 4_000_000, "compressed": 1_000_000},
        stable=True,
        promised=4.0,
        reason=reason,
    )
    return dataclasses.replace(made, **changes)


def row(name: str, kind: str, ms: float) -> ProfileRow:
    return ProfileRow(name=name, layer="", kind=kind, calls=1, ms=ms, share=0.0)


def test_a_page_holds_all_it_needs_and_says_what_was_measured(tmp_path: Path) -> None:
    page = write_report(result(), [gain(3.9)], tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    for cell in ("90.00", "88.00", "25.0%", "87.00 to 89.00", "3.90", "98%", "Plotly.newPlot"):
        assert cell in text
    # Nothing is fetched: no script, style or picture from elsewhere.
    head = re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", head)
    assert not re.search(r"<script[^>]+src=", text)


def test_what_is_written_by_others_is_escaped(tmp_path: Path) -> None:
    page = write_report(result(data="<script>alert(1)</script>"), [], tmp_path / "page.html")
    assert "<script>alert" not in page.read_text(encoding="utf-8")


def test_less_than_four_fifths_of_the_promise_is_warned_of_with_the_reason() -> None:
    assert report_warnings(result(), [gain(3.3)]) == []
    (found,) = report_warnings(result(), [gain(3.1, "the reason")])
    assert "3.10" in found
    assert "4.00" in found
    assert found.endswith("the reason.")
    (emulated,) = report_warnings(result(), [gain(1.0, "the reason", emulated=True)])
    assert "no time of real silicon" in emulated


def test_the_reason_is_where_the_time_is() -> None:
    teacher = [row("product_a", "other", 8.0), row("sdpa", "attention", 2.0)]
    rest = [row("norm", "layer_norm", 2.0)]
    fast = [row("product_b", "other", 2.0), row("sdpa", "attention", 0.5)]
    outside = explain([*teacher, *rest], [*fast, *rest], 4.0)
    assert "44% of the time is outside" in outside
    slow = explain([*teacher, *rest], [row("product_b", "other", 5.0)], 4.0)
    assert "50% of the teacher's rate" in slow
    dense = explain(teacher, [row("product_b", "other", 9.0)], 4.0, sparse=True)
    assert "no product leaves its blocks of zeros out" in dense
    sparse = explain(teacher, [row("sparse_b", "other", 9.0)], 4.0, sparse=True)
    assert "sparse and narrow" in sparse


@pytest.mark.parametrize(
    ("metric", "said"),
    [(87.0, "is as good"), (80.0, "is better"), (95.0, "is worse")],
)
def test_a_sparse_model_is_judged_by_the_dense_one(metric: float, said: str) -> None:
    found = result(recipe={"version": 1, "sparsity": [{}]}, dense=facts(1_000_000, metric))
    (note,) = report_notes(found)
    assert said in note
    assert [cells[0] for cells in comparison(found)[1]] == ["teacher", "dense", "compressed"]
    (without,) = report_notes(dataclasses.replace(found, dense=None))
    assert "No dense model" in without


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.5, 2.0, "is as good"), (0.5, 1.5, "is better"), (-1.5, -0.5, "is worse")],
)
def test_by_the_same_rows_where_both_have_their_scores(low: float, high: float, said: str) -> None:
    """However wide the interval of each alone is."""
    middle = (low + high) / 2
    dense = facts(1_000_000, 88.0 - middle, spread=5.0)
    difference = Difference(value=middle, interval=(low, high))
    found = result(recipe={"version": 1, "sparsity": [{}]}, dense=dense, difference=difference)
    (note,) = report_notes(found)
    assert said in note


@pytest.mark.parametrize(
    ("target", "precision", "error", "part"),
    [
        ("vulkan-mali", "f32", MissingDeviceError, "No device here runs vulkan-mali"),
        ("arm64", "bf16", InputError, "cannot do bf16"),
        ("nowhere", "f32", InputError, "nowhere"),
    ],
)
def test_targets_are_checked_before_anything_is_measured(
    target: str, precision: str, error: type[Exception], part: str
) -> None:
    with pytest.raises(error, match=part):
        check_targets([target], Recipe(default_precision=precision))
    check_targets(["host"], Recipe())
    with pytest.raises(InputError, match="threads"):
        check_targets(["host"], Recipe(), threads=0)


@pytest.mark.parametrize("name", ["perplexity", "pseudo_bits_per_character"])
def test_a_sparse_model_is_worse_where_less_is_better(name: str) -> None:
    sparse, dense = (
        dataclasses.replace(facts(1_000_000, metric), metric_name=name) for metric in (9.0, 5.0)
    )
    (note,) = report_notes(result(after=sparse, dense=dense))
    assert "is worse" in note


@pytest.mark.parametrize("name", ["page.pdf", "nowhere/page.html"])
def test_a_bad_path_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_report(result(), [], tmp_path / name)


def test_models_are_measured_beside_each_other(tmp_path: Path) -> None:
    """The same model as teacher and student gains nothing where much was promised."""
    made = save_model(tmp_path / "model", "sequence-classification")
    (found,) = measure_gains(result(output=made, teacher=made), ["host"], seq_len=16, rounds=2)
    assert set(found.ms) == {"teacher", "compressed"}
    assert found.promised == 4.0
    assert found.kept < 0.8
    assert "rate" in found.reason or "outside" in found.reason
    assert found.whole == found.gain
    assert found.weights["teacher"] == found.weights["compressed"] > 0


def test_the_compressed_model_is_measured_as_its_recipe_says(tmp_path: Path) -> None:
    """Matrix by matrix, the teacher beside it in f32 and in the same precisions."""
    recipe = Recipe(
        default_precision="int8",
        precision=(PrecisionRule(match="*intermediate*", precision="f32"),),
    )
    made = save_model(tmp_path / "model", "sequence-classification")
    own, tokenizer = load_model(made).module, load_tokenizer(made)
    narrow = save_compressed(own, tokenizer, tmp_path / "narrow", recipe)
    asked = result(output=narrow, teacher=made, recipe=recipe.to_json())
    (found,) = measure_gains(asked, ["host"], seq_len=16, rounds=2)
    assert set(found.ms) == {"teacher", NARROW, "compressed"}
    assert found.precision == "int8"
    # What the rule keeps wide is as large as it was, and no more than that.
    wide = 4 * 2 * 32 * 48
    assert wide < found.weights[NARROW] < found.weights["teacher"]
    assert found.weights[NARROW] == found.weights["compressed"]
    page = write_report(asked, [found], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "simulated in PyTorch" in page
