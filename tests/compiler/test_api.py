"""``canao.compile`` end to end: generic modules, several lengths, what it refuses and keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import canao
from canao import targets
from canao.compiler import making
from canao.compiler.api import compile_model
from canao.compiler.patterns.registry import pipeline
from canao.errors import InputError, NumericsError, UnsupportedError
from canao.targets import Target

from . import families

ALL_RUNNABLE = ("host", "arm64", "arm64-i8mm", "vulkan-llvmpipe")


class Mixed(torch.nn.Module):
    """Two inputs of different kinds, 64-bit indices inside, three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 8)
        self.conv = torch.nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.table(ids) * scale
        y = self.conv(x.transpose(1, 2)).relu()
        return {"features": y, "best": y.argmax(dim=-1), "total": y.double().sum(dim=(1, 2))}


@pytest.fixture(scope="module")
def mixed() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    inputs = {"ids": torch.tensor([[1, 2, 3, 9, 0]]), "scale": torch.rand(1, 5, 8)}
    return Mixed().eval(), inputs


def test_any_module_is_right_on_every_device(mixed: Any, tmp_path: Path) -> None:
    module, inputs = mixed
    report = compile_model(
        module,
        target=[*ALL_RUNNABLE, "vulkan-adreno", "vulkan-mali"],
        example_inputs=inputs,
        output=tmp_path / "mixed.canao",
    )
    assert all(report.numerics[target] for target in ALL_RUNNABLE)
    manifest = report.bundle.manifest
    assert [(s.name, s.dtype, s.shape) for s in manifest.inputs] == [
        ("ids", "int32", (1, 5)),
        ("scale", "float32", (1, 5, 8)),
    ]
    with torch.no_grad():
        expected = module(**inputs)
    with canao.load(report.bundle) as session:
        found = session(ids=inputs["ids"].numpy(), scale=inputs["scale"].numpy())
    assert set(found) == set(expected)
    assert found["best"].dtype == np.int32
    np.testing.assert_array_equal(found["best"], expected["best"].numpy())
    np.testing.assert_allclose(found["total"], expected["total"].numpy(), rtol=1e-5)


def test_lengths_share_one_copy_of_the_weights(tmp_path: Path) -> None:
    module = families.build("BERT")
    sizes = []
    for lengths in ([16], [8, 16, 24]):
        bundle = compile_model(module, seq_len=lengths, output=tmp_path / str(len(lengths))).bundle
        sizes.append(bundle.manifest.files["weights.safetensors"])
    assert sizes[0] == sizes[1]


def test_every_precision_of_fusion_agrees(tmp_path: Path) -> None:
    for fusion in ("auto", "stock", "none"):
        for target in ("host", "vulkan-llvmpipe"):
            report = compile_model(
                families.build("BERT"), target=target, seq_len=8, fusion=fusion,
                output=tmp_path / "bundle",
            )  # fmt: skip
            found = report.numerics[target]
            assert found is not None
            assert found["ok"]
            assert report.bundle.manifest.fusion == fusion


def test_a_batch_serves_any_number_of_rows(tmp_path: Path) -> None:
    module = families.build("DistilBERT")
    bundle = compile_model(module, seq_len=8, batch=2, output=tmp_path / "b").bundle
    ids = np.arange(5, 5 + 15, dtype=np.int32).reshape(5, 3)
    with torch.no_grad():
        expected = module(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()
    with canao.load(bundle) as session:
        found = session(input_ids=ids)["last_hidden_state"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_masked_language_model_shares_the_embedding_with_its_head(tmp_path: Path) -> None:
    """The output layer's weight is the word embedding, so the bundle has it once."""
    module = families.build("BERT", "masked-lm")
    module.save_pretrained(tmp_path / "model")
    bundle = compile_model(tmp_path / "model", seq_len=8, output=tmp_path / "b").bundle
    assert bundle.manifest.model["head"] == "masked-lm"
    assert bundle.manifest.outputs[0].name == "logits"
    vocabulary = [n for n, t in load(bytes(bundle.read("weights.safetensors"))).items()
                  if t.shape == (99, 32)]  # fmt: skip
    assert len(vocabulary) == 1
    ids = np.array([[7, 8, 9, 10, 11]], dtype=np.int32)
    with torch.no_grad():
        expected = module(input_ids=torch.from_numpy(ids)).logits.numpy()
    with canao.load(bundle) as session:
        found = session(input_ids=ids)["logits"]
    assert found.shape == (1, 5, 99)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ids_beyond_a_table_are_refused(sample_bundle: Path) -> None:
    with canao.load(sample_bundle) as session:
        for given in ({"input_ids": [[5, 99]]}, {"token_type_ids": [[0, 2]]}):
            with pytest.raises(InputError, match="range"):
                session(**{"input_ids": [[5, 6]], **given})


def test_in_process_gives_the_same_bundle(tmp_path: Path, monkeypatch: Any) -> None:
    built = []
    for isolated in (True, False):
        monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / f"cache-{isolated}"))
        path = tmp_path / f"{isolated}.canao"
        compile_model(families.build("BERT"), seq_len=8, isolated=isolated, output=path)
        built.append(path.read_bytes())
    assert built[0] == built[1]


def test_wrong_numbers_leave_no_bundle(tmp_path: Path, monkeypatch: Any) -> None:
    module = families.build("BERT")
    output = tmp_path / "bundle"
    build = making.build_modules

    def spoiled(*arguments: Any, **named: Any) -> Any:
        built = build(*arguments, **named)
        (weight,) = (
            w for name, w in built.weights.items() if "layer.0.output.dense.weight" in name
        )
        weight.mul_(1.01)
        return built

    monkeypatch.setattr(making, "build_modules", spoiled)
    with pytest.raises(NumericsError, match="no bundle was written"):
        compile_model(module, seq_len=8, output=output)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_too_large_for_a_buffer_is_named(tmp_path: Path) -> None:
    small = Target(
        name="tiny-gpu", kind="vulkan", description="test", gpu="adreno", precisions=("f32",),
        max_storage_buffer_bytes=1000,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"word_embeddings\.weight"):
        compile_model(families.build("BERT"), target=small, seq_len=8, output=tmp_path / "b")


class Endless(torch.nn.Module):
    """Infinite, with finite weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 / (x - x)


def test_a_model_that_gives_infinity_is_refused_before_compiling(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"NaN or infinity in .*, though its parameters"):
        compile_model(Endless(), example_inputs=[torch.ones(1, 4)], output=tmp_path / "b")


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8", "int8-weights"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embeddings.word_embeddings.weight", float("nan")),  # no sample may read this row
        ("encoder.layer.1.intermediate.dense.weight", float("nan")),
        ("encoder.layer.0.output.LayerNorm.bias", float("inf")),
    ],
)
def test_weights_that_are_no_numbers_are_named(
    precision: str, name: str, value: float, tmp_path: Path
) -> None:
    module = families.build("BERT")
    with torch.no_grad():
        module.get_parameter(name).view(-1)[-1] = value
    target = Target(name="any", kind="cpu", description="test", precisions=(precision,))
    with pytest.raises(InputError, match=f"^Parameter '{re.escape(name)}' holds NaN or infinity"):
        compile_model(module, target=target, seq_len=8, precision=precision, output=tmp_path / "b")


class Nested(torch.nn.Module):
    """Outputs inside outputs."""

    def forward(self, x: torch.Tensor) -> tuple[object, ...]:
        return x * 2, (x + 1, {"deep": x + 2}), None


def test_nested_outputs_are_all_there(tmp_path: Path) -> None:
    bundle = compile_model(Nested(), example_inputs=[torch.ones(2)], output=tmp_path / "b").bundle
    with canao.load(bundle) as session:
        found = session(x=np.array([1.0, 2.0], dtype=np.float32))
    assert {name: array.tolist() for name, array in found.items()} == {
        "output_0": [2, 4],
        "output_1_0": [2, 3],
        "output_1_1_deep": [3, 4],
    }


class Awkward(torch.nn.Module):
    """A parameter called like a function, equal bytes of different shapes, a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.main = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = torch.tensor([1.0, 2.0, 3.0, 4.0])
        square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        return x.log() * self.main + row + square.sum()


def test_awkward_names_and_constants(tmp_path: Path) -> None:
    example = torch.full((1, 4), 0.01)
    report = compile_model(Awkward(), example_inputs=[example], output=tmp_path / "b")
    assert report.numerics["host"] is not None


class Counts(torch.nn.Module):
    """State that changes from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_state_that_changes_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'calls'"):
        compile_model(Counts(), example_inputs=[torch.ones(2)], output=tmp_path / "b")


@pytest.mark.parametrize("target", ["host", "vulkan-llvmpipe", "vulkan-adreno"])
def test_every_pattern_may_be_dropped_that_says_so(target: str, tmp_path: Path) -> None:
    chosen = pipeline(targets.get(target))
    free = [p.name for stage in chosen.values() for p in stage if not p.required]
    assert len(free) >= 3

    def patterns(*dropped: str) -> Mapping[str, int]:
        return compile_model(
            families.build("BERT"), target=target, seq_len=8, drop_patterns=dropped,
            isolated=False, output=tmp_path / "b",
        ).patterns  # fmt: skip

    applied = patterns()
    # Those that find nothing to do here change nothing alone: they are dropped together.
    unused = [name for name in free if not applied[name]]
    for dropped in [unused, *([name] for name in free if applied[name])]:
        assert not set(dropped) & set(patterns(*dropped))


class Branches(torch.nn.Module):
    """Control flow that depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_control_flow_on_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"torch\.export cannot trace"):
        compile_model(Branches(), example_inputs=[torch.ones(2)], output=tmp_path / "b")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (3, {}, "not int"),
        ("minilm", {"example_inputs": [torch.ones(1)]}, "example_inputs"),
        (torch.nn.Linear(2, 2), {}, "example_inputs"),
        (torch.nn.Linear(2, 2), {"example_inputs": [torch.ones(1, 3)]}, "cannot be called"),
        (torch.nn.Linear(2, 2), {"example_inputs": [3]}, "not a tensor"),
        (torch.nn.Linear(2, 2), {"head": "base"}, "live module"),
    ],
)
def test_wrong_models_are_refused(model: Any, options: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        compile_model(model, output=tmp_path / "b", **options)


def test_without_an_output_the_bundle_is_kept_in_the_cache(
    monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path))
    bundle = canao.compile(families.build("BERT"), seq_len=8)
    assert bundle.path.is_relative_to(tmp_path)
    assert bundle.targets == ("host",)
