"""A recipe's precisions reach the compiled program, matrix by matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from canao import targets
from canao.cli import app
from canao.compiler.api import CompileReport, compile_model
from canao.compiler.compression.precisions import asked_precisions, bundle_precision
from canao.compiler.compression.recipe import EmbeddingRecipe, PrecisionRule, Recipe
from canao.compiler.compression.saving import save_compressed
from canao.compiler.compression.structured import prune_structured
from canao.errors import InputError, UnsupportedError

from .. import families
from .models import lively


def rules(default: str | None, **precisions: str) -> Recipe:
    """One rule for each word that a name may hold."""
    found = (PrecisionRule(match=f"*{word}*", precision=p) for word, p in precisions.items())
    return Recipe(default_precision=default, precision=tuple(found))


def products(report: CompileReport) -> dict[str, int]:
    """How many linear layers run in each precision."""
    found: dict[str, int] = {}
    for kinds in report.kernels.values():
        for kind, count in kinds.items():
            if kind.startswith("product"):
                precision = next(p for p in ("int8", "bf16", "f32") if p in kind)
                found[precision] = found.get(precision, 0) + count
    return found


def compiled(recipe: Recipe | None, tmp_path: Path, **options: Any) -> CompileReport:
    """A tiny BERT; the products of a layer are Q K V, the heads' output, and two more."""
    report = compile_model(
        families.build("BERT"),
        target="host",
        seq_len=8,
        output=tmp_path,
        recipe=recipe,
        **options,
    )
    assert all(found is not None and found["ok"] for found in report.numerics.values())
    return report


def test_the_narrowest_is_the_bundles() -> None:
    assert bundle_precision(None) == "f32"
    assert bundle_precision(Recipe()) == "f32"
    assert bundle_precision(rules("bf16", key="f32")) == "bf16"
    assert bundle_precision(rules(None, key="int8")) == "int8"


def test_what_is_not_the_bundles_is_named() -> None:
    model = families.build("BERT", "masked-lm")
    asked = asked_precisions(rules(None, intermediate="int8"), model)
    narrow = [n for n, p in model.named_parameters() if p.data_ptr() not in asked.wider]
    assert all("intermediate" in name for name in narrow if "dense.weight" in name)
    # The table of words is also what scores them, and it was not asked to be narrow.
    assert asked.wider[model.get_input_embeddings().weight.data_ptr()] == "f32"
    assert asked.tables is False
    assert asked_precisions(Recipe(embedding=EmbeddingRecipe(int8=True)), model).tables is True
    assert asked_precisions(rules("int8"), model).tables is None


def test_layers_stay_wider_and_joined_ones_as_the_widest(tmp_path: Path) -> None:
    # Two layers of four products, Q, K and V being one, and the pooler's.
    mixed = compiled(rules("int8", intermediate="f32", key="f32"), tmp_path)
    assert products(mixed) == {"int8": 5, "f32": 4}
    assert mixed.quantization is not None
    assert sorted(mixed.quantization["asked"].values()) == ["f32"] * 8


def test_a_layer_may_be_narrower(tmp_path: Path) -> None:
    report = compiled(rules(None, intermediate="int8"), tmp_path)
    assert products(report)["int8"] == 2
    assert report.bundle.manifest.precision == "int8"


def test_a_compressed_model_is_compiled_by_its_recipe(tmp_path: Path) -> None:
    recipe = Recipe(ffn=32, default_precision="int8")
    model = prune_structured(lively("BERT"), None, recipe)
    place = save_compressed(model, None, tmp_path / "model", recipe)
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"version": 1, "default_precision": "f32"}), encoding="utf-8")
    common = ["compile", str(place), "--target", "host", "--seq-len", "8", "--json"]
    runs = {
        "own": common,
        "other": [*common, "--recipe", str(file)],
        "chosen": [*common, "--precision", "f32"],
    }
    found = {}
    for name, words in runs.items():
        result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        found[name] = json.loads((tmp_path / name / "manifest.json").read_text())["precision"]
    assert found == {"own": "int8", "other": "f32", "chosen": "f32"}


def test_tables_alone_may_be_narrow(tmp_path: Path) -> None:
    import transformers as tf

    config = tf.BertConfig(
        vocab_size=1 << 15,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    report = compile_model(
        tf.BertModel(config),
        target="host",
        seq_len=8,
        output=tmp_path,
        recipe=Recipe(embedding=EmbeddingRecipe(int8=True)),
    )
    assert set(products(report)) == {"f32"}
    assert report.bundle.manifest.precision == "f32"
    # In f32, four bytes for each number of the table alone.
    assert report.bytes < 2 * 32 * (1 << 15)


REFUSED: list[tuple[Recipe, str]] = [
    (Recipe(layers=1), "layers: .* compress"),
    (Recipe(ffn=8), "ffn: .* compress"),
    (Recipe(heads=(1, 2)), "heads: .* compress"),
    (Recipe(embedding=EmbeddingRecipe(rank=4)), r"embedding\.rank: .* compress"),
    (
        Recipe.from_json(
            {"version": 1, "sparsity": [{"match": "*", "block": [4, 16], "density": 0.5}]}
        ),
        r"sparsity\[0\]: .* compress",
    ),
    (rules(None, nothing="int8"), r"precision\[0\].match"),
    (rules(None, key="f16"), "cannot do f16"),
    (rules("f16", key="int8"), "default_precision: .* cannot do f16"),
    (rules("int8", key="f16"), r"precision\[0\].* cannot do f16"),
]


@pytest.mark.parametrize(("recipe", "reason"), REFUSED, ids=lambda value: str(value)[:20])
def test_what_compiling_cannot_do_is_refused(recipe: Recipe, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        compile_model(families.build("BERT"), target="host", seq_len=8, recipe=recipe)


def test_names_say_nothing_of_other_modules() -> None:
    import torch

    with pytest.raises(UnsupportedError, match="no model of transformers"):
        asked_precisions(
            rules(None, weight="int8"), torch.nn.Linear(16, 16), targets=[targets.get("host")]
        )
