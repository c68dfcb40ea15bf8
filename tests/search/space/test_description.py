"""What a bundle says of its architecture: what was compiled, or nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.compression.description import describe
from canao.compiler.compression.precisions import bundle_precision
from canao.compiler.compression.recipe import Recipe
from canao.runtime_harness.bundle import Bundle
from canao.search.program.compiled import compiled_program
from canao.search.program.derive import program_of
from canao.search.space.architecture import HEADS, KINDS, Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.models import fresh_model, sub_network

from ...profiles import compiling
from ..support import tiny_model
from .spaces import architectures, tiny


def told(model: Any, recipe: Recipe | None = None, **changed: Any) -> dict[str, Any] | None:
    given: dict[str, Any] = {
        "seq_len": 16,
        "precision": bundle_precision(recipe),
        "precisions": recipe,
        "sizes": recipe,
        "wider": {},
    }
    return describe(model, **{**given, **changed})


def plain(architecture: Architecture) -> Architecture:
    """Without the shape of blocks, where no matrix has any."""
    forms = [layer.form(kind) for layer in architecture.layers for kind in KINDS]
    dense = all(form.density == 1 for form in forms)
    return dataclasses.replace(architecture, block=(4, 48)) if dense else architecture


@compiling(10)
@given(architectures())
def test_a_model_of_an_architecture_is_described_as_it(architecture: Architecture) -> None:
    found = told(fresh_model(architecture), architecture.recipe(), seq_len=architecture.seq_len)
    assert Architecture.from_json(found) == plain(architecture)


@compiling(4)
@given(architectures(st.just(tiny(layers=(1,), hidden=(48,), ffn=(48, 96)))), st.integers(0, 9))
def test_a_sub_network_of_a_teacher_too(architecture: Architecture, seed: int) -> None:
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        max_position_embeddings=32,
    )
    torch.manual_seed(seed)
    teacher = transformers.BertForSequenceClassification(config)
    model = sub_network(teacher, architecture)
    found = told(model, architecture.recipe(), seq_len=architecture.seq_len)
    assert Architecture.from_json(found) == plain(architecture)
    # More zeros than were asked for are what is there.
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[:, :40] = 0
    found = told(model, architecture.recipe(), seq_len=architecture.seq_len)
    if architecture.layers[0].up.density == 1:
        assert found is None
    else:
        assert found is not None
        assert found["layers"][0]["up"]["density"] < architecture.layers[0].up.density


@pytest.mark.parametrize("head", HEADS)
def test_a_plain_bert_has_the_sizes_of_its_weights(head: str) -> None:
    found = Architecture.from_json(told(tiny_model(head)))
    assert (found.hidden, found.head_size, found.vocabulary, found.positions) == (32, 16, 99, 64)
    assert [(layer.heads, layer.ffn) for layer in found.layers] == [(2, 48)] * 2
    assert (found.head, found.labels, found.seq_len, found.rest) == (head, 2, 16, "f32")
    assert not found.embedding_int8


def test_precisions_are_those_that_were_decided() -> None:
    model = tiny_model("sequence-classification")
    first = model.bert.encoder.layer[0].attention.self
    wider = {getattr(first, part).weight.data_ptr(): "bf16" for part in ("query", "key", "value")}
    found = Architecture.from_json(told(model, precision="int8", wider=wider))
    assert found.layers[0].qkv.precision == "bf16"
    assert found.layers[0].output.precision == found.layers[1].qkv.precision == "int8"
    assert (found.rest, found.embedding_int8) == ("int8", True)
    # One of three alone cannot be said.
    assert told(model, precision="int8", wider=dict([*wider.items()][:1])) is None


@pytest.mark.parametrize(
    "model",
    [
        tiny_model("masked-lm"),
        tiny_model("causal-lm"),
        tiny_model("base", hidden_act="relu"),
        transformers.BertModel(tiny_model("base").config, add_pooling_layer=False),
        transformers.RobertaModel(
            transformers.RobertaConfig(hidden_size=32, num_attention_heads=2, vocab_size=99)
        ),
        torch.nn.Linear(3, 3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_no_architecture_says_has_no_description(model: Any) -> None:
    assert told(model) is None


def test_zeros_that_nobody_asked_for_have_none() -> None:
    for path in ("bert.encoder.layer.1.output.dense", "bert.pooler.dense"):
        model = tiny_model("sequence-classification")
        with torch.no_grad():
            model.get_submodule(path).weight[:8] = 0
        assert told(model) is None


def test_the_program_of_what_a_bundle_says_is_its_own(sample_bundle: Path) -> None:
    bundle = Bundle.open(sample_bundle)
    for length in (8, 16):
        said = Architecture.from_json(bundle.manifest.architecture("host", length))
        assert said.seq_len == length
        assert compiled_program(bundle, "host", length) == program_of(said)


@pytest.mark.parametrize(("target", "precision"), [("arm64", "f32"), ("arm64-i8mm", "bf16")])
def test_layers_that_are_kept_wider_are_what_the_target_has_of_them(
    target: str, precision: str, sample_bundle: Path
) -> None:
    form = MatrixChoices(precisions=("int8",))
    space = tiny(layers=(2,), **dict.fromkeys(KINDS, form))
    one = space.sample(np.random.default_rng(0))
    model = fresh_model(one)
    layers = model.bert.encoder.layer
    parts = [getattr(layers[0].attention.self, part) for part in ("query", "key", "value")]
    wider = {part.weight.data_ptr(): "bf16" for part in (*parts, layers[1].output.dense)}
    manifest = Bundle.open(sample_bundle).manifest
    said = told(model, one.recipe(), wider=wider)
    manifest = dataclasses.replace(manifest, model={**manifest.model, "architecture": said})
    found = Architecture.from_json(manifest.architecture(target, one.seq_len))
    assert found.layers[0].qkv.precision == found.layers[1].down.precision == precision
    assert found.layers[0].down == one.layers[0].down
    assert found.layers[1].qkv == one.layers[1].qkv
    assert (found.rest, found.seq_len) == (one.rest, one.seq_len)
    assert len(program_of(found, target).dispatches) > 0


def test_an_older_bundle_says_nothing(sample_bundle: Path) -> None:
    manifest = Bundle.open(sample_bundle).manifest
    older = {name: item for name, item in manifest.model.items() if name != "architecture"}
    assert dataclasses.replace(manifest, model=older).architecture("host", 16) is None
