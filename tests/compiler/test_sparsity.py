"""Models with blocks of zeros: the same numbers, fewer multiplications, and a word about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.engines.registry import ENGINES, engine_for
from canao.compiler.kernels.product import ProductShape
from canao.compiler.kernels.sparse_choice import (
    chosen_sparse,
    cut_of,
    cuts,
    sparse_by_label,
    sparse_label,
    sparse_layout,
)
from canao.compiler.kernels.sparse_tiles import SparseTiles
from canao.compiler.models import from_module
from canao.compiler.quantization.plan import Decision, plan_quantization
from canao.compiler.quantization.rounding import rounded_for
from canao.compiler.request import LoweringRequest
from canao.compiler.sparsity import by_parameter, count_blocks

from ..profiles import compiling
from .support import imported, lower_and_run, relative_error

_TOLERANCE = {"f32": 1e-5, "bf16": 3e-2, "int8": 5e-2}
_WEIGHTS = ("first.weight", "second.weight")
_FEATURES = targets.get("host").features
PRECISIONS = [p for p in _TOLERANCE if engine_for(_FEATURES, p, 96, 40) is not None]


class Feedforward(torch.nn.Module):
    """Two linear layers, of which the first has blocks of zeros."""

    def __init__(self, depth: int, outputs: int, alive: np.ndarray[Any, Any], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = torch.nn.Linear(depth, outputs)
        self.second = torch.nn.Linear(outputs, 32)
        wide = alive.repeat(16, axis=0).repeat(4, axis=1)[:outputs, :depth]
        with torch.no_grad():
            self.first.weight *= torch.from_numpy(wide)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.nn.functional.gelu(self.first(x)))
        return y


def pruned(depth: int, outputs: int, density: float, seed: int) -> Feedforward:
    shape = (-(-outputs // 16), -(-depth // 4))
    alive = np.random.default_rng(seed).random(shape) < density
    return Feedforward(depth, outputs, alive, seed)


@pytest.mark.parametrize("precision", PRECISIONS)
@compiling()
@given(
    rows=st.integers(1, 70),
    depth=st.integers(16, 150),
    outputs=st.integers(16, 150),
    density=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_a_pruned_model_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
    rows: int,
    depth: int,
    outputs: int,
    density: float,
    seed: int,
) -> None:
    module = pruned(depth, outputs, density, seed).eval()
    x = torch.from_numpy(
        np.random.default_rng(seed).standard_normal((1, rows, depth)).astype(np.float32)
    )
    model, entry, inputs = imported(module, [x])
    folder: Path = tmp_path_factory.mktemp("sparse")
    found, result = lower_and_run(model, inputs, folder, precision=precision)
    with torch.no_grad():
        expected = entry(*inputs)
    listed = expected if isinstance(expected, tuple) else (expected,)
    assert relative_error(found, listed) < _TOLERANCE[precision]
    sparse = [d for d in result.derivations if d.kind == "pack_sparse"]
    assert len(sparse) == sum("kept and multiplied" in note for note in result.notes)
    if density in (0.0, 1.0) and depth >= 128 and depth % 8 == 0:
        # Without any weight the hidden values are constant, and most are cut from both products.
        cut = [d for d in result.derivations if d.kind == "cut"]
        assert bool(sparse or cut) == (density == 0.0)


@pytest.mark.skipif("int8-weights" not in targets.get("host").precisions, reason="no kernels here")
@pytest.mark.parametrize("density", [0.1, 0.6])
@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_narrow_weights_leave_blocks_out_where_that_is_smaller(
    tmp_path: Path, precision: str, density: float
) -> None:
    """For one row as for many, so that modules of a bundle share the blocks."""
    stored = []
    for rows in (1, 40):
        module = pruned(128, 160, density, 2).eval()
        x = torch.randn(1, rows, 128, generator=torch.Generator().manual_seed(rows))
        source = from_module(module, [x])
        plan = plan_quantization(source, None, Decision(precision=precision, cosine=0.5))
        model, entry, inputs = imported(module, [x])
        found, result = lower_and_run(
            plan.added_to(model),
            inputs,
            tmp_path,
            precision=precision,
            **plan.fields(model.parameters),
        )
        stored.append({name for name in result.parameters if "rounded(first" in name})
        word = "kept and multiplied" if density < 0.5 else "stored and multiplied"
        assert any(note.startswith("rounded(first") and word in note for note in result.notes)
        module.load_state_dict(
            {**module.state_dict(), **{n: plan.tensors[f"rounded({n})"] for n in _WEIGHTS}}
        )
        assert relative_error(found, entry(*inputs)) < _TOLERANCE["bf16"]
    assert stored[0] == stored[1]
    assert any(name.startswith("pack_sparse") for name in stored[0]) == (density < 0.5)


def test_blocks_are_left_out_where_linalg_was_faster_densely(tmp_path: Path) -> None:
    x = torch.randn(1, 40, 128)
    for density, kernels in ((0.1, 2), (1.0, 1)):
        model, entry, inputs = imported(pruned(128, 160, density, 3).eval(), [x])
        choices = {"f32 128x160": "linalg"}
        found, result = lower_and_run(model, inputs, tmp_path, choices=choices)
        assert result.patterns["canao.kernel_linear"] == kernels
        assert len(result.fallbacks) == 2 - kernels
        assert relative_error(found, entry(*inputs)) < _TOLERANCE["f32"]


def test_dense_models_say_nothing() -> None:
    assert count_blocks({"w": torch.randn(64, 64), "ids": torch.zeros(4, 4).int()}) == ()


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_layouts(seed: int) -> None:
    weight = pruned(90, 130, 0.3, seed).first.weight.detach()
    counts = by_parameter(count_blocks({"w": weight}))["w"]
    assert set(counts) == cuts()
    for kind in ENGINES:
        for tiles, rows in kind.blocks.items():
            if not kind.name.startswith("amx"):
                layout = sparse_layout(kind(rows, tiles), *weight.shape)
                assert counts[cut_of(layout)] == layout.stored(layout.survivors(weight.numpy()))


def test_calibrated_rounding_keeps_zeros() -> None:
    weight = pruned(64, 48, 0.5, 0).first.weight.detach()
    rounded = rounded_for(weight, torch.randn(200, 64))
    assert (rounded[weight == 0] == 0).all()
    assert count_blocks({"w": weight}) == count_blocks({"w": rounded})


def test_labels() -> None:
    for engine in (SparseTiles("int8", 3), SparseTiles("bf16", 1), *(k() for k in ENGINES)):
        found = sparse_by_label(sparse_label(engine))
        assert sparse_layout(found, 99, 77) == sparse_layout(engine, 99, 77)


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_choice_follows_the_density(kind: Any) -> None:
    shape = ProductShape(128, 768, 3072)

    def kept(density: float) -> Any:
        return chosen_sparse(
            kind(), shape, lambda layout: round(density * layout.panels * layout.columns)
        )

    assert kept(1.0) is None
    assert chosen_sparse(kind(), shape, lambda _: None) is None
    chosen = kept(0.25)
    assert chosen.stored
    assert chosen.density == pytest.approx(0.25, rel=0.01)
    assert chosen.engine.precision == kind.precision
    assert chosen.cost < 1 / 1.8


def test_vectors_stand_in_for_tiles_where_little_is_left() -> None:
    """In tiles, activations and sums are turned, however few blocks there are."""
    (tiles,) = (kind() for kind in ENGINES if kind.name == "amx_int8")
    shape = ProductShape(128, 768, 3072)

    def kept(density: float, features: tuple[str, ...]) -> Any:
        choice = chosen_sparse(
            tiles, shape, lambda it: round(density * it.panels * it.columns), features
        )
        assert choice is not None
        return choice.engine

    vectors = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
    assert kept(0.01, vectors).name == "avx512_int8"
    assert isinstance(kept(0.3, vectors), SparseTiles)
    assert isinstance(kept(0.01, ()), SparseTiles)


def test_requests_keep_their_counts() -> None:
    request = LoweringRequest(
        text="", target=targets.get("host"), blocks=(("w", 4, 48, 1, 7), ("w", 4, 16, 16, 9))
    )
    assert LoweringRequest.from_json(request.to_json()) == request
