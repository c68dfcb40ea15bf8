"""Blocks of zeros on GPUs: right on software Vulkan, compiled for the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.compiler.api import compile_model
from canao.compiler.kernels.sparse_choice import chosen_lanes
from canao.compiler.kernels.sparse_gpu import SparseLanes

from ..profiles import compiling

GPUS = ("vulkan-llvmpipe", "vulkan-adreno", "vulkan-mali")
PRECISIONS = ("f32", "f16", "bf16", "int8")  # of the kernels


class Pruned(torch.nn.Module):
    """Two layers with blocks of zeros, one panel of the first without any weight."""

    def __init__(self, depth: int, hidden: int, outputs: int, density: float, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.first = torch.nn.Linear(depth, hidden, bias=bool(seed % 2))
        self.second = torch.nn.Linear(hidden, outputs)
        for layer in (self.first, self.second):
            blocks = (-(-layer.out_features // 16), -(-layer.in_features // 4))
            alive = rng.random(blocks) < density
            if layer is self.first and density < 1:
                alive[0] = False
            wide = torch.from_numpy(alive.repeat(16, axis=0).repeat(4, axis=1))
            with torch.no_grad():
                layer.weight *= wide[: layer.out_features, : layer.in_features]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Something that is not element-wise between them keeps idle neurons where they are.
        hidden = torch.nn.functional.layer_norm(self.first(x), (self.first.out_features,))
        y: torch.Tensor = self.second(hidden)
        return y


@pytest.mark.parametrize("precision", [*PRECISIONS, "int8-weights"])
def test_blocks_are_left_out(precision: str, tmp_path: Path) -> None:
    names = GPUS if precision == "int8" else GPUS[:1]  # how it is read differs most from f32
    report = compile_model(
        Pruned(72, 100, 36, 0.3, 1).eval(),
        example_inputs={"x": torch.randn(1, 11, 72)},
        target=names,
        precision=precision,
        isolated=False,
        output=tmp_path / "bundle",
    )
    found = [dict(count) for count in report.kernels.values()]
    assert found == [{"product gpu_sparse": 2}] * len(names)
    numerics = report.numerics["vulkan-llvmpipe"]
    assert numerics is not None
    assert numerics["ok"]


@compiling()
@given(
    rows=st.integers(1, 140),
    depth=st.integers(16, 100),
    hidden=st.integers(16, 100),
    density=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_numbers_on_software_vulkan(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    depth: int,
    hidden: int,
    density: float,
    seed: int,
) -> None:
    report = compile_model(
        Pruned(depth, hidden, 48, density, seed).eval(),
        example_inputs={"x": torch.randn(1, rows, depth)},
        target="vulkan-llvmpipe",
        isolated=False,
        output=tmp_path_factory.mktemp("gpu") / "bundle",
    )
    found = report.numerics["vulkan-llvmpipe"]
    assert found is not None
    assert found["ok"]
    (counts,) = report.kernels.values()
    sparse = counts.get("product gpu_sparse", 0)
    # Rows of whole vectors of four, and enough zeros to be worth it.
    possible = (depth % 4 == 0 and hidden % 4 == 0) + (hidden % 4 == 0)
    assert sparse <= (possible if density < 1 else 0)
    if density == 0.0:
        assert sparse == possible


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_wants_fewer_blocks_than_software(precision: str) -> None:
    engine = SparseLanes(precision)
    blocks = 48 * 192

    def density(kept: int, lanes: int) -> float | None:
        chosen = chosen_lanes(engine, 768, 768, kept, lanes)
        assert chosen is None or chosen.cost < 1 / 1.1
        return chosen and chosen.density

    assert density(blocks // 4, 8) == 0.25
    assert density(blocks // 4, 64) == 0.25
    assert density(blocks * 3 // 4, 8) == 0.75
    assert density(blocks * 3 // 4, 64) is None
    assert density(blocks, 8) is None
