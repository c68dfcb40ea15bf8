from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from canao.compiler.compression.block_sparsity import BlockSparsifier
from canao.compiler.compression.recipe import Recipe, SparsityRule
from canao.search.training import TrainingOptions
from canao.search.training.callbacks import load_sparsity, save_sparsity
from canao.search.training.capture import Capture
from canao.search.training.checkpoints import (
    MARK,
    keep_only,
    last_checkpoint,
    mark_whole,
    read_mark,
)
from canao.search.training.student import Student, Teacher, matched_layers
from tests.search.support import tiny_model

BATCH = {
    "input_ids": torch.tensor([[2, 7, 8, 3, 0], [2, 9, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]),
}


def gpt2() -> Any:
    import transformers as tf

    torch.manual_seed(0)
    return tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    ).eval()


def test_layers_are_matched_evenly_the_last_by_the_last() -> None:
    assert matched_layers(3, 6, None) == [1, 3, 5]
    assert matched_layers(4, 6, None) == [0, 2, 3, 5]
    assert matched_layers(6, 6, None) == [0, 1, 2, 3, 4, 5]
    assert matched_layers(2, 6, (0, 4)) == [0, 4]


@pytest.mark.parametrize("make", [lambda: tiny_model("sequence-classification"), gpt2])
def test_what_a_model_computes_is_caught(make: Any) -> None:
    model = make()
    capture = Capture(model, [-1, 0, 1], [1])
    with torch.no_grad():
        outputs = model(**BATCH, output_hidden_states=True)
    hidden, projections = capture.take()
    assert torch.equal(hidden[-1], outputs.hidden_states[0])
    assert torch.equal(hidden[0], outputs.hidden_states[1])
    assert [tuple(part.shape) for part in projections[1]] == [(2, 5, 32)] * 3
    capture.close()
    with torch.no_grad():
        model(**BATCH)
    assert capture.take() == ({}, {})


def test_the_terms_of_the_loss_add_up_and_reach_the_projection() -> None:
    teacher = tiny_model("sequence-classification", seed=5)
    student = tiny_model("sequence-classification")
    narrow = tiny_model("sequence-classification", seed=3)
    narrow.config.hidden_size = 16
    import transformers as tf

    narrow = tf.BertForSequenceClassification(narrow.config)
    options = TrainingOptions(relation_layers=2)
    targets = Teacher(teacher, dict(enumerate([-1, 0, 1], -1)), [0, 1], None)(BATCH)
    batch = {**BATCH, "labels": torch.tensor([0, 1])}
    module = Student(narrow, "sequence-classification", options, teacher)
    assert set(module.projections) == {"embeddings", "0", "1"}
    torch.rand(1)  # what was drawn before is of no account
    again = Student(narrow, "sequence-classification", options, teacher).projections
    for name, projection in module.projections.items():
        assert torch.equal(projection.weight, again[name].weight)
    found = module(targets=targets, **batch)
    assert set(found) == {"loss", "task", "logits", "hidden", "relations"}
    parts = sum(float(value.detach()) for name, value in found.items() if name != "loss")
    assert float(found["loss"].detach()) == pytest.approx(parts, rel=1e-5)
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() for p in module.projections.parameters())
    same = Student(student, "sequence-classification", options, teacher)
    assert not len(same.projections)


def test_a_teacher_reads_its_own_numbers_of_the_tokens() -> None:
    teacher = tiny_model("sequence-classification")
    shift = torch.arange(99).roll(1)
    renamed = Teacher(teacher, {}, [], shift)({**BATCH})
    plain = Teacher(teacher, {}, [], None)({**BATCH, "input_ids": shift[BATCH["input_ids"]]})
    assert torch.equal(renamed.logits["logits"], plain.logits["logits"])


def test_tied_weights_are_written_once_and_read_back(tmp_path: Path) -> None:
    module = Student(gpt2(), "causal-lm", TrainingOptions())
    state = module.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    other = Student(gpt2(), "causal-lm", TrainingOptions())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    left_out = other.load_state_dict(state, strict=False)
    assert (left_out.missing_keys, left_out.unexpected_keys) == ([], [])
    del state["model.transformer.wte.weight"]  # and without its only name it is missing
    assert other.load_state_dict(state, strict=False).missing_keys == [
        "model.transformer.wte.weight"
    ]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name])


@pytest.mark.parametrize("method", ["magnitude", "movement"])
def test_the_state_of_sparsity_survives_a_file(method: Any, tmp_path: Path) -> None:
    rule = SparsityRule(match="*.intermediate.dense.weight", block=(4, 16), density=0.5)
    recipe = Recipe(sparsity=(rule,))
    first, second = (
        BlockSparsifier(tiny_model("sequence-classification"), recipe, method=method)
        for _ in range(2)
    )
    first.step(0.6)
    save_sparsity(first, tmp_path / "state.safetensors")
    load_sparsity(second, tmp_path / "state.safetensors")
    assert first.densities() == second.densities() != {}
    assert all(torch.equal(mask, second.masks()[name]) for name, mask in first.masks().items())


def test_only_whole_checkpoints_count_and_broken_ones_go(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, whole in ((9, True), (10, True), (11, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / MARK).write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-11").exists()
    keep_only(tmp_path, (9, None))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]


def test_a_checkpoint_that_is_being_deleted_is_whole_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        mark_whole(tmp_path / f"checkpoint-{step}", {"step": step})

    def stop(path: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            keep_only(tmp_path, (9,))
    found = last_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-9"
    assert read_mark(found) == {"step": 9}
