"""The recipes in the documentation are recipes, and cost what it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
import transformers as tf

from canao.compiler.checkpoint import packaged_minilm
from canao.compiler.compression.costs import model_costs
from canao.compiler.compression.recipe import Recipe
from canao.compiler.compression.structure import structure_of
from canao.compiler.compression.structured import prune_in_place, uniform

PAGE = Path(__file__).resolve().parents[3] / "docs" / "compression.md"
RECIPES = [
    text
    for text in re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if text.startswith("version")  # the others are of training
]


@pytest.mark.parametrize(("text", "share"), zip(RECIPES, (0.49, 0.24, None), strict=True))
def test_recipes_of_the_page(text: str, share: float | None) -> None:
    config = tf.AutoConfig.from_pretrained(packaged_minilm())
    with torch.device("meta"):
        model = tf.AutoModel.from_config(config)
    recipe = Recipe.from_json(tomllib.loads(text))
    recipe.validate(model.config)
    whole = model_costs(model, 128).flops
    prune_in_place(model, recipe, uniform(structure_of(model)))
    if share is not None:
        assert model_costs(model, 128).flops / whole == pytest.approx(share, abs=0.005)


def test_the_page_names_every_field() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in Recipe.__dataclass_fields__ if name != "embedding")
