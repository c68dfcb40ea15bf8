from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.training import TrainingOptions

options = st.builds(
    TrainingOptions,
    epochs=st.floats(0.1, 50),
    batch_size=st.integers(1, 512),
    seed=st.integers(0, 2**32 - 1),
    seq_len=st.none() | st.integers(8, 512),
    holdout=st.floats(0.01, 0.5),
    bf16=st.none() | st.booleans(),
    layer_map=st.none() | st.lists(st.integers(0, 30), min_size=1).map(tuple),
    relation_heads=st.none() | st.integers(1, 64),
    sparsity_method=st.sampled_from(["magnitude", "movement"]),
    quantization_aware=st.none() | st.booleans(),
)


@given(options)
def test_options_survive_json(value: TrainingOptions) -> None:
    assert TrainingOptions.from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    ("given_", "part"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"holdout": 0.9}, "holdout"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"layer_map": [1, -1]}, "layer_map"),
        ({"layer_map": "all"}, "layer_map"),
        ({"sparsity_method": "luck"}, "sparsity_method"),
        ({"colour": 1}, "colour"),
        ({"version": 2}, "version"),
        (dict.fromkeys(("task_weight", "logits_weight", "hidden_weight"), 0), "relation_weight"),
    ],
)
def test_a_wrong_field_is_named(given_: dict[str, Any], part: str) -> None:
    if part == "relation_weight":  # three of four terms may be left out, not all
        assert TrainingOptions.from_json(given_).relation_weight
        given_ = {**given_, part: 0}
        part = "weight"
    with pytest.raises(InputError, match=part):
        TrainingOptions.from_json(given_)


def test_files_are_read_and_named_in_errors(tmp_path: Path) -> None:
    file = tmp_path / "training.toml"
    file.write_text("epochs = 2\nlayer_map = [0, 3]\n")
    assert TrainingOptions.load(file) == TrainingOptions(epochs=2.0, layer_map=(0, 3))
    file.write_text("epochs = 2\nsteps = 3\n")
    with pytest.raises(InputError, match=r"training\.toml.*steps"):
        TrainingOptions.load(file)
    file.write_text("epochs = ")
    with pytest.raises(InputError, match=r"training\.toml"):
        TrainingOptions.load(file)
    with pytest.raises(InputError, match="nothing-there"):
        TrainingOptions.load(tmp_path / "nothing-there.json")


def test_what_is_only_of_the_student_leaves_the_teacher_alone() -> None:
    one = TrainingOptions(epochs=9, learning_rate=1e-3, relation_layers=2, sparse_at=0.1)
    assert one.for_teacher() == TrainingOptions().for_teacher()
    assert one.replace(seed=1).for_teacher() != one.for_teacher()
