"""What a user may call a model, and what each wrong name is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from canao.compiler.checkpoint import HEADS
from canao.compiler.models import from_module, load_model
from canao.errors import InputError

from . import families


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    families.build("BERT", "question-answering").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_directory_is_loaded_with_its_own_head(directory: Path) -> None:
    source = load_model(directory)
    assert (source.name, source.family, source.head) == ("model", "bert", "question-answering")
    assert source.has_trained_weights
    assert source.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert source.max_length == 40


def test_a_head_may_be_chosen(directory: Path) -> None:
    assert load_model(directory, head="base").head == "base"


def test_a_config_alone_gives_the_same_random_weights_every_time(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    first, second = (load_model(directory / "config.json") for _ in range(2))
    assert not first.has_trained_weights
    for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_minilm_is_found_and_has_a_tokenizer() -> None:
    source = load_model("minilm")
    assert source.head == "base"
    assert json.loads(source.tokenizer_json() or b"")["model"]


def test_roberta_counts_positions_after_its_padding() -> None:
    assert from_module(families.build("RoBERTa"), None).max_length == 38


def test_a_module_in_training_is_left_in_training() -> None:
    module = families.build("BERT").train()
    source = from_module(module, None)
    assert module.training
    assert not source.module.training


def test_half_precision_weights_are_compiled_in_float32() -> None:
    module = torch.nn.Linear(4, 4).half()
    source = from_module(module, [torch.ones(1, 4)])
    assert source.module.weight.dtype == torch.float32
    assert module.weight.dtype == torch.float16


def wrong(tmp_path: Path, case: str) -> str:
    empty = tmp_path / "empty"
    empty.mkdir()
    if case == "no config":
        return str(empty)
    if case == "missing":
        return str(tmp_path / "nowhere")
    content = {"not json": "{", "no type": "{}", "strange": '{"model_type": "strange"}'}
    if case in content:
        (empty / "config.json").write_text(content[case])
        return str(empty)
    if case == "truncated":
        families.build("BERT").save_pretrained(empty)
        weights = empty / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        return str(empty)
    if case == "pickle":
        families.build("BERT").config.save_pretrained(empty)
        (empty / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        return str(empty)
    return case


@pytest.mark.parametrize(
    "case",
    ["no config", "missing", "not json", "no type", "strange", "truncated", "pickle", "a/b/c"],
)
def test_wrong_models_get_one_sentence(case: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        load_model(wrong(tmp_path, case))
    assert "\n" not in str(raised.value)


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    families.build("BERT").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"qa_outputs.* is missing"):
        load_model(tmp_path, head="question-answering")


def test_an_encoder_saved_without_a_pooler_is_loaded_without_one(directory: Path) -> None:
    source = load_model(directory, head="base")
    assert source.has_trained_weights
    assert source.module.pooler is None


def test_an_unknown_head_names_the_known_ones(directory: Path) -> None:
    with pytest.raises(InputError) as raised:
        load_model(directory, head="poetry")
    assert all(head in str(raised.value) for head in HEADS)


def test_a_saved_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    module = families.build("BERT")
    with torch.no_grad():
        module.embeddings.word_embeddings.weight[7] = float("nan")
    module.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"'embeddings\.word_embeddings\.weight' holds NaN"):
        load_model(tmp_path)


def test_a_module_without_examples_is_refused() -> None:
    with pytest.raises(InputError, match="example_inputs"):
        from_module(torch.nn.Linear(2, 2), None)


def test_too_many_examples_are_refused() -> None:
    with pytest.raises(InputError, match="named arguments"):
        from_module(torch.nn.Linear(2, 2), [torch.ones(1, 2)] * 3)
