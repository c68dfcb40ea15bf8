"""What is saved is read again: by canao always, by plain transformers where it can say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from canao.compiler.api import compile_model
from canao.compiler.checkpoint import packaged_minilm
from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.compiler.compression.blocks import block_count, expanded, packed, unpacked
from canao.compiler.compression.loading import load_compressed, load_masks
from canao.compiler.compression.low_rank import factorise_embedding
from canao.compiler.compression.manifest import read_manifest
from canao.compiler.compression.matching import matrices
from canao.compiler.compression.recipe import EmbeddingRecipe, Recipe, SparsityRule
from canao.compiler.compression.saving import save_compressed
from canao.compiler.compression.structured import prune_structured
from canao.compiler.models import load_model
from canao.errors import InputError

from .. import families
from .models import ENCODERS, FAMILIES, GROUPED, lively, outputs

SPARSE = (SparsityRule(match="*", block=(4, 16), density=0.5),)


def head_of(family: str) -> str:
    return "causal-lm" if family in families.DECODERS else "sequence-classification"


def reload(family: str, place: Path) -> Any:
    auto = getattr(tf, families.HEADS[head_of(family)])
    return auto.from_pretrained(place).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_uniform_models_are_read_by_transformers(family: str, tmp_path: Path) -> None:
    heads = 2 if family in GROUPED else 1
    recipe = Recipe(layers=1, heads=heads, ffn=20, hidden=16)
    pruned = prune_structured(lively(family, head_of(family)), None, recipe)
    place = save_compressed(pruned, None, tmp_path / "model", recipe)
    assert torch.equal(outputs(reload(family, place)), outputs(pruned))
    assert torch.equal(outputs(load_compressed(place)), outputs(pruned))
    assert load_model(place).recipe == recipe


@given(data=st.data(), family=st.sampled_from(FAMILIES))
def test_differing_models_are_read_by_canao(
    data: st.DataObject, family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp() / "differing"
    heads = st.just(2) if family in GROUPED else st.integers(1, 2)
    recipe = Recipe(
        heads=(data.draw(heads), data.draw(heads)),
        ffn=(data.draw(st.integers(16, 40)), data.draw(st.integers(41, 48))),
        sparsity=SPARSE if family != "GPT-2" and data.draw(st.booleans()) else (),
    )
    pruned = prune_structured(lively(family, head_of(family)), None, recipe)
    masks = None
    if recipe.sparsity:
        sparsifier = BlockSparsifier(pruned, recipe)
        sparsifier.step(1.0)
        masks = sparsifier.masks()
    save_compressed(pruned, None, place, recipe, masks)
    manifest = read_manifest(place)
    assert manifest is not None
    assert not manifest.plain
    found = load_model(place)
    assert torch.equal(outputs(found.module), outputs(pruned))
    assert found.recipe == recipe
    for name, mask in load_masks(place).items():
        assert torch.equal(mask, (masks or {})[name])
    # What canao alone reads has its blocks packed alone; but transformers must see that shapes
    # differ, and not draw what is missing.
    both = set(masks or ()) & set(load_file(place / "model.safetensors"))
    assert not masks or both < set(masks)
    assert (place / "packed.safetensors").is_file() == bool(masks)
    with pytest.raises(RuntimeError):
        reload(family, place)


def test_blocks_are_packed_beside_what_transformers_reads(tmp_path: Path) -> None:
    recipe = Recipe(layers=1, sparsity=(SparsityRule(match="*", block=(4, 16), density=0.25),))
    model = prune_structured(lively("BERT", "sequence-classification"), None, recipe)
    sparsifier = BlockSparsifier(model, recipe)
    sparsifier.step(1.0)
    place = save_compressed(model, None, tmp_path / "model", recipe, sparsifier.masks())
    assert torch.equal(outputs(reload("BERT", place)), outputs(model))
    blocks, masks = load_file(place / "packed.safetensors"), load_file(place / "masks.safetensors")
    assert set(blocks) == set(masks)
    manifest = read_manifest(place)
    assert manifest is not None
    for name, weight in matrices(model).items():
        facts = manifest.masks[name]
        assert blocks[name].shape == (facts.kept, 16, 4)
        assert facts.shape == tuple(weight.shape)
        assert torch.equal(unpacked(blocks[name], masks[name], (4, 16), facts.shape), weight)
    # The whole matrices count, where transformers may have trained them on.
    (place / "packed.safetensors").unlink()
    assert torch.equal(outputs(load_compressed(place)), outputs(model))


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**16))
def test_what_is_packed_comes_out_again(outputs: int, inputs: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    alive = torch.rand(block_count((outputs, inputs), (4, 16)), generator=draw) < 0.5
    mask = expanded(alive, (4, 16), (outputs, inputs))
    values = torch.randn(outputs, inputs, generator=draw) * mask
    kept = packed(values, alive, (4, 16))
    assert kept.shape == (int(alive.sum()), 16, 4)
    assert torch.equal(unpacked(kept, alive, (4, 16), (outputs, inputs)), values)


@pytest.mark.parametrize("damage", ["gone", "fewer", "broken"])
def test_damaged_blocks_are_input_errors(damage: str, tmp_path: Path) -> None:
    recipe = Recipe(heads=(1, 2), sparsity=SPARSE)
    model = prune_structured(lively("BERT"), None, recipe)
    BlockSparsifier(model, recipe).step(1.0)
    place = save_compressed(model, None, tmp_path / "model", recipe)
    file = place / "packed.safetensors"
    blocks = load_file(file)
    if damage == "gone":
        file.unlink()
    elif damage == "fewer":
        save_file({name: tensor[1:].contiguous() for name, tensor in blocks.items()}, file)
    else:
        file.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_compressed(place)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_factorised_table_is_read_by_canao(family: str, tmp_path: Path) -> None:
    recipe = Recipe(heads=1, embedding=EmbeddingRecipe(rank=4))
    model = prune_structured(lively(family, head_of(family)), None, recipe)
    factorise_embedding(model, 4)
    place = save_compressed(model, None, tmp_path / "model", recipe)
    assert torch.equal(outputs(load_compressed(place)), outputs(model))
    base = load_model(place, head="base").module
    assert torch.equal(outputs(base), outputs(model.base_model))
    with pytest.raises(InputError, match="is missing"):
        load_model(place, head="question-answering")


def test_the_factors_are_the_nearest_of_their_rank() -> None:
    model = lively("BERT")
    table = model.embeddings.word_embeddings.weight.detach().clone()
    factorise_embedding(model, 6)
    made = model.embeddings.word_embeddings(torch.arange(99))
    values = torch.linalg.svdvals(table)
    torch.testing.assert_close((made - table).norm(), values[6:].norm())


def test_directories_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"
    model = families.build("BERT")
    save_compressed(model, None, place, Recipe())
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_compressed(prune_structured(model, None, Recipe(ffn=8)), None, place, Recipe(ffn=8))
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    assert list(tmp_path.iterdir()) == [place]


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="another directory"):
        save_compressed(families.build("BERT"), None, tmp_path, Recipe())


def test_masks_that_the_weights_do_not_keep_are_refused(tmp_path: Path) -> None:
    model = families.build("BERT")
    recipe = Recipe(sparsity=SPARSE)
    name = "encoder.layer.0.output.dense.weight"
    mask = torch.zeros(32, 48, dtype=torch.bool)
    with pytest.raises(InputError, match="not zero"):
        save_compressed(model, None, tmp_path / "model", recipe, {name: mask})
    with pytest.raises(InputError, match="no rule"):
        save_compressed(model, None, tmp_path / "model", Recipe(), {name: mask})


def test_a_tokenizer_goes_with_its_model(tmp_path: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(packaged_minilm())
    place = save_compressed(families.build("BERT"), tokenizer, tmp_path / "model", Recipe())
    assert load_model(place).tokenizer_json() is not None
    with pytest.raises(InputError, match="another model's tokenizer"):
        prune_structured(families.build("BERT"), tokenizer, Recipe(layers=1))


@given(
    change=st.dictionaries(
        st.sampled_from(["format", "version", "plain", "layers", "rank", "masks", "recipe", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["heads", "head_size", "ffn"]), inner)
            ),
            max_leaves=4,
        ),
        min_size=1,
    )
)
def test_damaged_manifests_are_input_errors(
    change: dict[str, Any], saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    manifest = saved / "canao.json"
    whole = manifest.read_text(encoding="utf-8")
    try:
        manifest.write_text(json.dumps({**json.loads(whole), **change}), encoding="utf-8")
        message = ""
        try:
            found = load_compressed(saved)
        except InputError as error:
            message = str(error)
        assert message or outputs(found).shape == (2, 9, 32)
        assert "\n" not in message
    finally:
        manifest.write_text(whole, encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that only canao reads."""
    recipe = Recipe(heads=(1, 2), ffn=(20, 48))
    model = prune_structured(lively("BERT"), None, recipe)
    return save_compressed(model, None, tmp_path_factory.mktemp("saved") / "model", recipe)


@pytest.mark.parametrize(("family", "rank"), [("BERT", True), ("MPNet", False)])
def test_pruning_then_compiling_is_compiling_the_pruned(
    family: str, rank: bool, tmp_path: Path
) -> None:
    import canao

    recipe = Recipe(
        heads=(1, 2),
        ffn=(32, 48),
        sparsity=SPARSE,
        embedding=EmbeddingRecipe(rank=8) if rank else None,
    )
    model = prune_structured(lively(family), None, recipe)
    if rank:
        factorise_embedding(model, 8)
    sparsifier = BlockSparsifier(model, recipe)
    sparsifier.step(1.0)
    place = save_compressed(model, None, tmp_path / "model", recipe, sparsifier.masks())
    report = compile_model(place, target="host", seq_len=16, output=tmp_path / "bundle")
    assert all(found is not None and found["ok"] for found in report.numerics.values())
    ids = [[5, 6, 7, 8, 9]]
    with canao.load(report.bundle.path) as session:
        compiled = session(input_ids=ids)["last_hidden_state"]
    expected = outputs(model, torch.tensor(ids)).numpy()
    np.testing.assert_allclose(compiled, expected, atol=1e-4 * np.abs(expected).max())
