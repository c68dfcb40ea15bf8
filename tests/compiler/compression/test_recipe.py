"""Recipes: what is written is read again, and what is wrong is answered with its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.recipe import Recipe
from canao.errors import InputError, UnsupportedError

from .. import families
from .models import recipes


def toml(value: Any) -> str:
    """A value in TOML, whose strings are JSON's but for one character."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml(v)}" for key, v in value.items() if v is not None)
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(recipe=recipes)
def test_json_is_read_as_it_was_written(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@given(recipe=recipes)
def test_files_are_read_as_they_were_written(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    written = recipe.to_json()
    as_json, as_toml = folder / "recipe.json", folder / "recipe.toml"
    as_json.write_text(json.dumps(written), encoding="utf-8")
    lines = [f"{key} = {toml(value)}" for key, value in written.items() if value is not None]
    as_toml.write_text("\n".join(lines), encoding="utf-8")
    assert Recipe.load(as_json) == recipe
    assert Recipe.load(as_toml) == recipe


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".json", ".toml"]))
def test_hostile_bytes_are_input_errors(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    refused(tmp_path_factory.getbasetemp() / f"hostile{suffix}", content)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["int8", "f32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["match", "block", "density", "precision", "rank", "int8", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
_fields = st.sampled_from([*Recipe.__dataclass_fields__, "speed"])


@given(values=st.dictionaries(_fields, _values))
def test_hostile_values_are_input_errors(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = {"version": 1, **values}
    place = tmp_path_factory.getbasetemp() / "values.json"
    place.write_text(json.dumps(values), encoding="utf-8")
    message = ""
    try:
        recipe = Recipe.load(place)
    except InputError as error:
        message = str(error)
    if message:
        assert "\n" not in message
        assert str(place) in message
    else:
        assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("suffix", [".json", ".toml"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"version": ' + b"9" * 10_000 + b"}",
        b"version = " + b"9" * 10_000,
        b"a = " + b"[" * 100_000,
        b'{"version": 1, "version": 1}',
        b"version = 1979-05-27",
        b"\xff\xfe",
        b" " * (1 << 21),
    ],
    ids=lambda content: str(content[:12]),
)
def test_bombs_are_input_errors(content: bytes, suffix: str, tmp_path: Path) -> None:
    refused(tmp_path / f"bomb{suffix}", content)


def refused(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    with pytest.raises(InputError) as raised:
        Recipe.load(place)
    assert "\n" not in str(raised.value)
    assert str(place) in str(raised.value)


def rule(**changes: Any) -> dict[str, Any]:
    return {"match": "*", "block": [4, 16], "density": 0.5, **changes}


# BERT: 2 layers of 2 heads of 16, 48 feed-forward units, width 32, 99 tokens.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "version"),
    ({"version": True}, "version"),
    ({"speed": 3}, "speed"),
    ({"layers": 3}, "layers"),
    ({"layers": 0}, "layers"),
    ({"layers": []}, "layers"),
    ({"layers": [1, 0]}, "layers"),
    ({"layers": [0, 2]}, "layers"),
    ({"heads": 3}, "heads"),
    ({"heads": [1, 3]}, r"heads\[1\]"),
    ({"heads": [1]}, "heads"),
    ({"heads": 1.5}, "heads"),
    ({"ffn": 49}, "ffn"),
    ({"ffn": [48, 49]}, r"ffn\[1\]"),
    ({"ffn": [1, 2, 3]}, "ffn"),
    ({"hidden": 33}, "hidden"),
    ({"hidden": 31}, "hidden"),
    ({"hidden": True}, "hidden"),
    ({"sparsity": rule()}, "sparsity"),
    ({"sparsity": [rule(block=[3, 16])]}, r"sparsity\[0\].block"),
    ({"sparsity": [rule(block=[4, 5])]}, r"sparsity\[0\].block"),
    ({"sparsity": [rule(block=[4, 16, 1])]}, r"sparsity\[0\].block"),
    ({"sparsity": [rule(density=0)]}, r"sparsity\[0\].density"),
    ({"sparsity": [rule(density=1.1)]}, r"sparsity\[0\].density"),
    ({"sparsity": [rule(density=0.01)]}, r"sparsity\[0\].density .* empty layer"),
    ({"sparsity": [rule(match="*nothing*")]}, r"sparsity\[0\].match"),
    ({"sparsity": [rule(), rule(match="*query*")]}, r"sparsity\[1\].match"),
    ({"sparsity": [rule(shape=1)]}, r"sparsity\[0\].shape"),
    ({"sparsity": [{"match": "*"}]}, r"sparsity\[0\].block is missing"),
    ({"precision": [{"match": "*", "precision": "f8"}]}, r"precision\[0\].precision"),
    ({"precision": [{"match": "*table*", "precision": "f32"}]}, r"precision\[0\].match"),
    ({"default_precision": "f8"}, "default_precision"),
    ({"embedding": {"rank": 32}}, "embedding.rank"),
    ({"embedding": {"rank": 0}}, "embedding.rank"),
    ({"embedding": {"vocabulary": 100}}, "embedding.vocabulary"),
    ({"embedding": {"int8": 1}}, "embedding.int8"),
    ({"embedding": {"width": 1}}, "embedding.width"),
]


@pytest.mark.parametrize(("asked", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_the_impossible_is_refused_with_its_field(asked: dict[str, Any], field: str) -> None:
    config = families.build("BERT").config
    with pytest.raises(InputError, match=field):
        Recipe.from_json({"version": 1, **asked}).validate(config)


def test_a_recipe_needs_a_version() -> None:
    with pytest.raises(InputError, match="version"):
        Recipe.from_json({"layers": 1})


def test_sizes_hold_for_what_is_left() -> None:
    config = families.build("BERT").config
    made = {"version": 1, "ffn": 16, "sparsity": [rule(match="*intermediate*", density=0.1)]}
    Recipe.from_json({**made, "ffn": 48}).validate(config)
    with pytest.raises(InputError, match="empty layer"):
        Recipe.from_json({**made, "hidden": 16, "heads": 1}).validate(config)


def test_an_unknown_family_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="albert"):
        Recipe().validate(families.build("ALBERT").config)


def test_heads_that_share_keys_go_together() -> None:
    with pytest.raises(InputError, match="groups of 2"):
        Recipe(heads=1).validate(families.build("Llama").config)


def test_a_width_like_the_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match="hidden"):
        Recipe(hidden=24, heads=1).validate(families.build("ELECTRA").config)


def test_tied_words_are_not_factorised() -> None:
    from canao.compiler.compression.recipe import EmbeddingRecipe

    config = families.build("BERT", "masked-lm").config
    config.architectures = ["BertForMaskedLM"]
    with pytest.raises(UnsupportedError, match=r"embedding\.rank"):
        Recipe(embedding=EmbeddingRecipe(rank=4)).validate(config)
