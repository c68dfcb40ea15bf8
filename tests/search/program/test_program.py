from __future__ import annotations

import dataclasses
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.compression.precisions import bundle_precision
from canao.compiler.idle import find_idle
from canao.compiler.kernels.choosing import tuning
from canao.compiler.kernels.choosing.candidates import candidates_for
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.labels import LINALG
from canao.compiler.kernels.choosing.table import Table, write_table
from canao.compiler.kernels.sparse_choice import cuts
from canao.compiler.sparsity import by_parameter, count_blocks
from canao.errors import InputError, UnsupportedError
from canao.search.program import derive
from canao.search.program.compiled import compiled_program
from canao.search.program.derive import calls_of, program_of
from canao.search.program.dispatch import KINDS, Program
from canao.search.program.features import feature_names, features
from canao.search.program.model import Model
from canao.search.program.names import dispatch_of
from canao.search.program.zeros import Drawn, counts_of, idle_of
from canao.search.space.architecture import Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.masks import drawn_blocks
from canao.search.space.models import blocks_of, fresh_model, sub_network
from canao.search.space.space import ArchitectureSpace

from ...profiles import compiling
from ..space.spaces import architectures, tiny
from .compiling import agree, calls_by_compiler

_FORMS = MatrixChoices(precisions=("f32", "bf16", "int8"), densities=(1.0, 0.5, 0.1))
_DRAWN = tiny(
    heads=(2, 6),
    ffn=(48, 192, 384),
    **dict.fromkeys(("qkv", "output", "up", "down"), _FORMS),
    seq_lens=(1, 16, 72),
    positions=128,
    embedding_ranks=(None, 8, 24),
    per_layer=("heads", "ffn", "down.density", "output.precision"),
)
"""Lengths on both sides of what fuses by rows; idle inputs and neurons among the densities."""


@compiling(2)
@given(
    architectures(st.just(_DRAWN)),
    st.sampled_from(
        [
            {},
            {"head": "base", "rest": "bf16"},
            {"head": "token-classification", "labels": 16},
            {"head": "question-answering"},
        ]
    ),
)
def test_what_is_derived_is_what_is_compiled(
    architecture: Architecture, changed: dict[str, Any]
) -> None:
    architecture = dataclasses.replace(architecture, **changed)
    targets = ("host", "arm64-i8mm")
    for target, compiled in zip(targets, calls_by_compiler(architecture, targets), strict=True):
        assert not agree(calls_of(architecture, target), compiled), target


def test_blocks_of_a_model_give_its_own_program() -> None:
    space = tiny(
        layers=(1,),
        hidden=(96,),
        heads=(6,),
        ffn=(384,),
        qkv=MatrixChoices(densities=(0.5,)),
        output=MatrixChoices(),
        up=MatrixChoices(precisions=("int8",), densities=(0.25,)),
        down=MatrixChoices(precisions=("bf16",), densities=(0.1,)),
        seq_lens=(72,),
        positions=128,
    )
    architecture = space.sample(np.random.default_rng(0))
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=96,
        num_hidden_layers=1,
        num_attention_heads=6,
        intermediate_size=384,
        max_position_embeddings=128,
    )
    teacher = transformers.BertForSequenceClassification(config)
    scales = torch.randn(384, generator=torch.Generator().manual_seed(2)).exp()
    with torch.no_grad():
        teacher.bert.encoder.layer[0].intermediate.dense.weight *= scales[:, None]
        teacher.bert.encoder.layer[0].output.dense.weight *= scales
    # Units are put in order of their importance, so whole neurons are left without a weight.
    model = sub_network(teacher, architecture)
    (compiled,) = calls_by_compiler(architecture, ("host",), model)
    blocks = blocks_of(model, architecture)
    assert not agree(calls_of(architecture, blocks=blocks), compiled)
    assert program_of(architecture, blocks=blocks) != program_of(architecture)
    drawn = blocks_of(fresh_model(architecture), architecture)
    assert program_of(architecture, blocks=drawn) == program_of(architecture)


def test_what_was_measured_counts_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = MatrixChoices(precisions=("f32",), densities=(0.5,))
    others = MatrixChoices(precisions=("int8",), densities=(0.5, 0.1))
    narrow = MatrixChoices(precisions=("int8-weights",))
    space = tiny(layers=(1,), qkv=others, output=narrow, up=forms, down=others, seq_lens=(24,))
    architecture = space.sample(np.random.default_rng(3))
    host = targets.get("host")
    precision = bundle_precision(architecture.recipe())
    model = Model(architecture, host, precision, {}, partial(drawn_blocks, architecture))
    by_rule = [call if isinstance(call, str) else call.entry for call in model.calls()]
    asked = list(model.context.unmeasured)
    assert any(one.zeros for one in asked)
    assert any(one.precision == "int8-weights" for one in asked)
    # Whatever a rule would take last, so that as much as possible is otherwise.
    times = {}
    for problem in asked:
        *_, last = [c for c in candidates_for(host.features, problem) if c.label != LINALG]
        times[problem] = {last.label: 1.0}
    write_table(tmp_path / "own.json", Table({cpu_key(): times}))
    monkeypatch.setattr(tuning, "user_table", lambda: tmp_path / "own.json")
    derive._choices.cache_clear()
    try:
        found = calls_of(architecture)
        (compiled,) = calls_by_compiler(architecture, ("host",))
    finally:
        derive._choices.cache_clear()
    assert not agree(found, compiled)
    assert compiled != by_rule


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_narrow_weights_alone(precision: str) -> None:
    form = MatrixChoices(precisions=(precision,))
    space = tiny(layers=(1,), **dict.fromkeys(("qkv", "output", "up", "down"), form))
    architecture = space.sample(np.random.default_rng(1))
    (compiled,) = calls_by_compiler(architecture, ("host",))
    assert not agree(calls_of(architecture), compiled)
    kinds = {one.kind for one in program_of(architecture).dispatches}
    assert "weights" in kinds


def test_narrow_weights_with_zeros_are_multiplied_by_blocks() -> None:
    space = tiny(
        layers=(1,),
        hidden=(96,),
        heads=(6,),
        ffn=(384,),
        qkv=MatrixChoices(),
        output=MatrixChoices(),
        up=MatrixChoices(precisions=("int8-weights",), densities=(0.1,)),
        down=MatrixChoices(precisions=("int8-weights",), densities=(0.75,)),
        seq_lens=(72,),
        positions=128,
    )
    architecture = space.sample(np.random.default_rng(0))
    (compiled,) = calls_by_compiler(architecture, ("host",))
    assert not agree(calls_of(architecture), compiled)
    kinds = Counter(one.kind for one in program_of(architecture).dispatches)
    assert kinds["sparse"] == 1
    assert kinds["weights"] == 1


def test_the_program_of_a_bundle_is_read_back(tmp_path: Path) -> None:
    architecture = _DRAWN.build(
        {
            **{decision.name: decision.choices[0] for decision in _DRAWN.decisions()},
            "seq_len": 72,
            "qkv.precision": "int8",
            "down.precision": "bf16",
            "layer.0.output.precision": "int8",
        }
    )
    bundle = compile_model(
        fresh_model(architecture, 1),
        seq_len=architecture.seq_len,
        recipe=architecture.recipe(),
        output=tmp_path / "model.canao",
        isolated=False,
        cosine=0.5,
    ).bundle
    assert compiled_program(bundle, "host") == program_of(architecture)
    with pytest.raises(InputError):
        compiled_program(bundle, "host", 9)


@given(architectures())
def test_zeros_are_counted_as_in_the_weights(architecture: Architecture) -> None:
    weights = dict(fresh_model(architecture).named_parameters())
    named = {name.rpartition("encoder.layer.")[2]: w for name, w in weights.items()}
    paths = {
        "output": ("attention.output.dense",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
        "qkv": tuple(f"attention.self.{part}" for part in ("query", "key", "value")),
    }
    for number in range(len(architecture.layers)):
        for kind, parts in paths.items():
            for part, path in enumerate(parts):
                weight = {"w": named[f"{number}.{path}.weight"]}
                blocks = drawn_blocks(architecture, number, kind, part)
                if blocks is None:
                    assert not count_blocks(weight)
                    continue
                outputs, inputs, _ = architecture.matrix(number, kind)
                drawn = Drawn(blocks, architecture.block, (outputs, inputs))
                counted = by_parameter(count_blocks(weight)).get("w", {})
                assert dict(counts_of(drawn)) == counted
                assert not counted or set(counted) == set(cuts())
                idle = idle_of("w", drawn)
                lines = [] if idle is None else [("w", f"{idle.inputs:x}", f"{idle.outputs:x}")]
                assert list(find_idle(weight)) == lines


@given(architectures(st.just(_DRAWN)))
def test_programs_round_trip_and_add_up(architecture: Architecture) -> None:
    program = program_of(architecture, "arm64-i8mm", threads=2)
    assert Program.from_json(json.loads(json.dumps(program.to_json()))) == program
    assert {one.kind for one in program.dispatches} <= set(KINDS)
    vector = features(program, architecture)
    named = dict(zip(feature_names(), vector, strict=True))
    assert np.isfinite(vector).all()
    assert named["dispatches"] == len(program.dispatches)
    assert sum(v for n, v in named.items() if n.endswith(".count")) == named["dispatches"]
    assert sum(v for n, v in named.items() if n.endswith(".bytes")) == program.bytes
    assert named["flops"] == architecture.costs().flops
    if all(layer.form(k).density == 1 for layer in architecture.layers for k in ("up", "down")):
        # Nothing is cut: what runs is what the model asks for, blocks that are padded included.
        assert program.flops >= 0.99 * architecture.costs().flops


def test_more_work_is_seen() -> None:
    config = transformers.BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6)
    space = ArchitectureSpace.of_teacher(config)
    largest = {decision.name: decision.choices[-1] for decision in space.decisions()}
    plain = {n: (1.0 if n.endswith("density") else v) for n, v in largest.items()}
    plain |= {n: "f32" for n in plain if n.endswith("precision")}
    dense = program_of(space.build(plain), "arm64-i8mm")
    sparse = program_of(space.build({**plain, "up.density": 0.1}), "arm64-i8mm")
    int8 = program_of(space.build({**plain, "up.precision": "int8"}), "arm64-i8mm")
    assert sparse.flops < 0.8 * dense.flops
    assert int8.bytes < dense.bytes
    assert {one.kind for one in sparse.dispatches} > {"sparse", "product", "attention"}
    assert features(dense, space.build(plain)).shape == (len(feature_names()),)


def test_what_cannot_be_told_is_refused() -> None:
    architecture = tiny().sample(np.random.default_rng(0))
    with pytest.raises(UnsupportedError, match="vulkan-llvmpipe is vulkan"):
        program_of(dataclasses.replace(architecture), "vulkan-llvmpipe")
    layer = architecture.layers[0]
    half = dataclasses.replace(layer, up=dataclasses.replace(layer.up, precision="f16"))
    with pytest.raises(InputError, match="f16"):
        program_of(dataclasses.replace(architecture, layers=(half,)), "arm64")
    with pytest.raises(InputError, match="no-such"):
        program_of(architecture, "no-such")
    wide = dataclasses.replace(architecture, head_size=2048)
    with pytest.raises(UnsupportedError, match="wider than"):
        program_of(wide)
    for name in ("run_product_of_another_canao", "", "elementwise", "run_sparse_x_f32_1x1_2x2x2"):
        with pytest.raises(InputError, match="compile the model again"):
            dispatch_of(name)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [(("version",), 2), (("dispatches", 0, "kind"), "magic"), (("threads",), 0), (("x",), 1)],
)
def test_programs_that_cannot_be_are_refused(path: tuple[Any, ...], wrong: Any) -> None:
    value: Any = program_of(tiny().sample(np.random.default_rng(0)), "arm64-i8mm").to_json()
    place = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    with pytest.raises(InputError, match=str(path[-1])):
        Program.from_json(value)
