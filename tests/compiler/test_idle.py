"""Models with whole inputs and outputs of zeros: smaller products, the same numbers."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.cutting import ACTIVATIONS, cut
from canao.compiler.idle import FILL, find_idle, idle_by_parameter, kept_places
from canao.compiler.kernels import gather_choice
from canao.compiler.kernels.engines.registry import engine_for
from canao.compiler.kernels.gather_choice import expanded_cost, gathered_cost
from canao.compiler.request import LoweringRequest

from ..profiles import compiling
from .support import imported, lower_and_run, relative_error

FREE = gather_choice.Worth(pick=0, place=0, dispatch=0)
_TOLERANCE = {"f32": 1e-5, "bf16": 3e-2, "int8": 5e-2}
PRECISIONS = [
    p for p in _TOLERANCE if engine_for(targets.get("host").features, p, 96, 40) is not None
]
_APPLIED: dict[str, Any] = {
    "none": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class Hidden(torch.nn.Module):
    """Hidden values that one or two layers read, made by one layer or by a gate and another."""

    def __init__(
        self, depth: int, hidden: int, seed: int, *, gated: bool, second: bool, activation: str
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.up = torch.nn.Linear(depth, hidden)
        self.gate = torch.nn.Linear(depth, hidden, bias=False) if gated else None
        self.down = torch.nn.Linear(hidden, 33, bias=bool(seed % 2))
        self.other = torch.nn.Linear(hidden, 17) if second else None
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = _APPLIED[self.activation](self.up(x))
        if self.gate is not None:
            hidden = hidden * self.gate(x)
        y: torch.Tensor = self.down(hidden)
        return y if self.other is None else torch.cat([y, self.other(hidden)], dim=-1)


@st.composite
def hidden_models(draw: st.DrawFn) -> Hidden:
    hidden, seed = draw(st.integers(16, 130)), draw(st.integers(0, 2**31))
    model = Hidden(
        draw(st.integers(16, 90)),
        hidden,
        seed,
        gated=draw(st.booleans()),
        second=draw(st.booleans()),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )
    rng = np.random.default_rng(seed)

    def drawn() -> Any:
        return torch.from_numpy(rng.random(hidden) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0])))

    unread, constant = drawn(), drawn()
    with torch.no_grad():
        for reader in (model.down, model.other):
            if reader is not None:
                reader.weight[:, unread] = 0
        model.up.weight[constant] = 0
    return model.eval()


@compiling()
@given(precision=st.sampled_from(PRECISIONS), model=hidden_models(), rows=st.integers(1, 40))
def test_hidden_values_are_cut(
    tmp_path_factory: pytest.TempPathFactory, precision: str, model: Hidden, rows: int
) -> None:
    found, entry, inputs = imported(model, [torch.randn(1, rows, model.up.in_features)])
    arrays, result = lower_and_run(
        found, inputs, tmp_path_factory.mktemp("cut"), precision=precision
    )
    assert relative_error(arrays, entry(*inputs)) < _TOLERANCE[precision]
    hidden = model.up.out_features
    readers = [m.weight for m in (model.down, model.other) if m is not None]
    idle = np.logical_and.reduce([(w == 0).all(dim=0).numpy() for w in readers])
    if model.gate is None:
        idle = idle | (model.up.weight == 0).all(dim=1).numpy()
    left = min(hidden, max(FILL, -(-int((~idle).sum()) // FILL) * FILL))
    cuts = [d for d in result.derivations if d.kind == "cut"]
    # Blocks of zeros may be left out instead, where that saves more.
    assert result.patterns["canao.cut_hidden"] in (hidden - left, 0)
    assert bool(cuts) == bool(result.patterns["canao.cut_hidden"])
    if precision == "f32" and left < hidden - FILL and not any("kept" in n for n in result.notes):
        assert cuts


class Shared(torch.nn.Module):
    """Two layers that read one input, of which neither needs all; one makes too few outputs."""

    def __init__(self, depth: int, outputs: int, seed: int, part: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.norm = torch.nn.LayerNorm(depth)
        self.left = torch.nn.Linear(depth, outputs, bias=bool(seed % 2))
        self.right = torch.nn.Linear(depth, 40)
        unread = torch.from_numpy(rng.random(depth) >= part)
        with torch.no_grad():
            self.norm.bias += torch.randn(depth)
            for layer in (self.left, self.right):
                layer.weight[:, unread] = 0
            self.left.weight[torch.from_numpy(rng.random(outputs) >= part)] = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(x)
        return self.left(x) + 1, self.right(x).tanh()


@compiling()
@given(
    precision=st.sampled_from(PRECISIONS),
    rows=st.integers(1, 40),
    depth=st.integers(16, 200),
    outputs=st.integers(16, 150),
    part=st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_lines_are_picked_and_placed(
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
    rows: int,
    depth: int,
    outputs: int,
    part: float,
    seed: int,
) -> None:
    # As if picking were free: whether it pays is another matter than whether it is right.
    with mock.patch.object(gather_choice, "worth_of", return_value=FREE):
        model, entry, inputs = imported(
            Shared(depth, outputs, seed, part).eval(), [torch.randn(1, rows, depth)]
        )
        request = {"precision": precision, "blocks": ()}
        arrays, result = lower_and_run(model, inputs, tmp_path_factory.mktemp("picked"), **request)
    assert relative_error(arrays, entry(*inputs)) < _TOLERANCE[precision]
    kinds = {d.kind for d in result.derivations}
    if part == 1.0:
        assert "cut" not in kinds
    if part <= 0.1 and min(depth, outputs) > 64:
        assert {"kept_places", "kept_ranks", "cut"} <= kinds


def test_idle_lines_on_gpus(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        Hidden(70, 130, 3, gated=True, second=False, activation="gelu"),
        torch.nn.LayerNorm(33),
        torch.nn.Linear(33, 40),
    )
    with torch.no_grad():
        model[0].down.weight[:, ::2] = 0
        model[0].up.weight[:, 1::3] = 0
        model[0].gate.weight[:, 1::3] = 0
        model[2].weight[::2] = 0
    with mock.patch.object(gather_choice, "worth_of", return_value=FREE):
        report = compile_model(
            model.eval(),
            example_inputs={"input": torch.randn(1, 9, 70)},
            target=("vulkan-llvmpipe", "vulkan-adreno", "vulkan-mali"),
            isolated=False,
            output=tmp_path / "bundle",
        )
    # 65 of 130 neurons are read, in whole sixteens; applied once for each target.
    assert report.patterns["canao.cut_hidden"] == 3 * (130 - 80)
    assert report.patterns["canao.gather_lines"] == 3 * 2
    numerics = report.numerics["vulkan-llvmpipe"]
    assert numerics is not None
    assert numerics["ok"]


def test_what_else_is_read_stays(tmp_path: Any) -> None:
    class Shown(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 16)
            with torch.no_grad():
                self.up.weight[5:] = 0

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = torch.relu(self.up(x))
            return self.down(hidden), hidden

    model, entry, inputs = imported(Shown().eval(), [torch.randn(1, 3, 16)])
    arrays, result = lower_and_run(model, inputs, tmp_path)
    assert result.patterns["canao.cut_hidden"] == 0
    assert relative_error(arrays, entry(*inputs)) < 1e-5


def test_infinite_constants_of_unread_neurons_add_nothing(tmp_path: Any) -> None:
    model = Hidden(16, 64, 1, gated=False, second=False, activation="relu").eval()
    with torch.no_grad():
        model.down.weight[:, 20:] = 0
        model.up.weight[20:] = 0
    imported_model, _, inputs = imported(model, [torch.randn(1, 3, 16)])
    with torch.no_grad():  # a model that has them from the beginning is refused
        imported_model.parameters["up.bias"][40:] = torch.inf
        imported_model.parameters["up.bias"][50] = torch.nan
    arrays, _ = lower_and_run(imported_model, inputs, tmp_path)
    with torch.no_grad():
        model.up.bias[20:] = 0
        assert relative_error(arrays, (model(*inputs),)) < 1e-5


def test_picking_does_not_pay_for_little_work() -> None:
    for precision in PRECISIONS:
        engine = engine_for(targets.get("host").features, precision, 768, 128)
        assert gathered_cost(engine, 768, 3072, 0.25) < 0.5
        assert gathered_cost(engine, 768, 16, 0.5) > 0.9
        assert expanded_cost(engine, 16, 768, 0.5) > 0.9
        assert gathered_cost(engine, 24, 24, 0.1) > 0.9


@given(st.integers(1, 200), st.integers(0, 2**200))
def test_kept_places(size: int, idle: int) -> None:
    places = kept_places(idle, size)
    assert list(places) == sorted(set(places))
    busy = [i for i in range(size) if not idle >> i & 1]
    assert set(busy) <= set(places) <= set(range(size))
    assert len(places) == min(size, max(FILL, -(-len(busy) // FILL) * FILL))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_idle_lines_are_found_again(outputs: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.random((outputs, depth)).astype(np.float32)) + 0.1
    rows, columns = (torch.from_numpy(rng.random(n) < 0.4) for n in weight.shape)
    weight[rows], weight[:, columns] = 0, 0
    lines = find_idle({"w": weight, "ids": torch.zeros(3, 3).int(), "v": torch.zeros(3)})
    request = LoweringRequest(text="", target=targets.get("host"), idle=lines)
    assert LoweringRequest.from_json(request.to_json()) == request
    known = idle_by_parameter(lines)
    assert set(known) <= {"w"}
    zero = weight == 0
    for axis, size in ((1, depth), (0, outputs)):
        mask = (known["w"].inputs if axis else known["w"].outputs) if known else 0
        assert [mask >> i & 1 for i in range(size)] == zero.all(dim=1 - axis).int().tolist()
    kept = cut([weight, weight], {"axis": 1, "readers": 1})
    assert torch.equal(kept[kept != 0], weight[weight != 0])
