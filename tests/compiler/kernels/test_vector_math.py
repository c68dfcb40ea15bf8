"""The functions on vectors against float64, over every kind of number."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from canao import targets
from canao.compiler.kernels import vector_math as vm
from canao.compiler.kernels.emitter import Emitter
from canao.compiler.kernels.executable import Kernel, Operand
from canao.compiler.kernels.trial import build, program
from canao.compiler.kernels.values import Buffer, Value

from ...profiles import compiling
from .batch import ARM, PLACES, Call
from .support import load_kernel

COUNT = 4096
HAS_PARTS = "avx512dq" in targets.get("host").features


def power_of_two(e: Emitter, x: Value, accuracy: vm.Accuracy, *, native: bool) -> Value:
    below = e.minimum(e.number(0.0, x.type), x)
    return vm.exp2_nonpositive(e, below, accuracy, native=native)


def power_of_two_reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return vm.exp2_reference(np.minimum(x, 0.0))


FUNCTIONS = {
    "exp": vm.exp,
    "exp2": functools.partial(power_of_two, accuracy="accurate", native=False),
    "exp2_fast": functools.partial(power_of_two, accuracy="fast", native=False),
    "exp2_native": functools.partial(power_of_two, accuracy="accurate", native=HAS_PARTS),
    "exp2_native_fast": functools.partial(power_of_two, accuracy="fast", native=HAS_PARTS),
    "gelu": vm.gelu,
    "gelu_fast": functools.partial(vm.gelu, accuracy="fast"),
    "gelu_tanh": vm.gelu_tanh,
    "gelu_tanh_fast": functools.partial(vm.gelu_tanh, accuracy="fast"),
    "silu": vm.silu,
    "relu": vm.relu,
    "tanh": vm.tanh,
}
REFERENCES = {
    "exp": vm.exp_reference,
    "exp2": power_of_two_reference,
    "exp2_fast": power_of_two_reference,
    "exp2_native": power_of_two_reference,
    "exp2_native_fast": power_of_two_reference,
    "gelu": vm.gelu_reference,
    "gelu_fast": vm.gelu_reference,
    "gelu_tanh": vm.gelu_tanh_reference,
    "gelu_tanh_fast": vm.gelu_tanh_reference,
    "silu": vm.silu_reference,
    "relu": vm.relu_reference,
    "tanh": vm.tanh_reference,
}
# Relative to the true value; the rest is absolute, times the larger of 1 and |x|.
RELATIVE = {
    "exp": 2e-7,
    "exp2": 2e-7,
    "exp2_fast": 1.2e-4,
    "exp2_native": 2e-7,
    "exp2_native_fast": 1.2e-4,
    "silu": 4e-7,
    "relu": 0.0,
    "tanh": 4e-7,
}
ABSOLUTE = {"gelu": 2.5e-7, "gelu_fast": 1.4e-4, "gelu_tanh": 2.5e-7, "gelu_tanh_fast": 1.4e-4}
ALMOST_ZERO = 1e-37
SIZES = [0.01, 1.0, 4.0, 30.0, 120.0]


def all_functions(lanes: int, count: int = COUNT) -> Kernel:
    """One output row for each function."""

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with e.loop(0, count, lanes) as loop:
            x = e.load_vector(buffers["X"], [loop.index], lanes)
            for row, function in enumerate(FUNCTIONS.values()):
                e.store_vector(function(e, x), buffers["Y"], [row, loop.index])

    inputs = (Operand("X", (count,), "f32"),)
    outputs = (Operand("Y", (len(FUNCTIONS), count), "f32"),)
    return Kernel(f"functions_{lanes}x{count}", inputs, outputs, 1, body)


@functools.cache
def compiled(place: str, lanes: int) -> Call:
    return load_kernel(all_functions(lanes), targets.get(place))


def evaluate(
    x: np.ndarray[Any, Any], place: str = "host", lanes: int | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    padded = np.zeros(COUNT, np.float32)
    padded[: x.size] = x
    (found,) = compiled(place, lanes or (16 if place == "host" else 4))([padded])
    return {name: found[row, : x.size] for row, name in enumerate(FUNCTIONS)}


def check(x: np.ndarray[Any, Any], place: str = "host", lanes: int | None = None) -> None:
    for name, found in evaluate(x, place, lanes).items():
        expected = REFERENCES[name](x)
        if name in RELATIVE:
            bound = np.abs(expected) * RELATIVE[name] + ALMOST_ZERO
        else:
            bound = ABSOLUTE[name] * np.maximum(1.0, np.abs(x.astype(np.float64)))
        wrong = np.abs(found.astype(np.float64) - expected) > bound
        assert not wrong.any(), (name, x[wrong][:5], found[wrong][:5], expected[wrong][:5])


@given(
    arrays(
        np.float32,
        st.integers(1, 64),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_any_finite_number(x: np.ndarray[Any, Any]) -> None:
    check(x)


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
def test_numbers_of_a_size(seed: int, size: float) -> None:
    check(np.random.default_rng(seed).uniform(-size, size, COUNT).astype(np.float32))


@pytest.mark.parametrize("place", ARM)
@compiling()
@given(arrays(np.uint32, 64, elements=st.integers(0, 2**32 - 1)), st.integers(0, 2**31))
def test_numbers_of_any_size_on_arm(place: str, drawn: np.ndarray[Any, Any], seed: int) -> None:
    """Many at once, because each call is a process: any bits, and what lies near to zero."""
    rng = np.random.default_rng(seed)
    bits = np.concatenate([drawn, rng.integers(0, 2**32, COUNT // 4, np.uint32)])
    near = rng.uniform(-1.0, 1.0, COUNT // 2) * rng.choice(SIZES, COUNT // 2)
    x = np.concatenate([bits.view(np.float32), near.astype(np.float32)])
    check(x[np.isfinite(x)], place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_any_number_of_lanes(lanes: int, place: str) -> None:
    check(np.linspace(-20.0, 20.0, COUNT, dtype=np.float32), place, lanes)


@pytest.mark.parametrize("place", PLACES)
def test_special_numbers(place: str) -> None:
    found = evaluate(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32), place)
    for name, (high, low, nan, zero, negative_zero) in found.items():
        assert np.isnan(nan), name
        if name.startswith("exp"):
            assert high > 2.3e38 if name == "exp" else high == 1.0
            assert 0.0 <= low < 2e-38
            assert zero == negative_zero == 1.0
            continue
        assert high == pytest.approx(1.0 if name == "tanh" else np.inf), name
        assert abs(low) < (1.1 if name == "tanh" else 2e-4), name
        assert abs(zero) < 1e-7, name
        assert abs(negative_zero) < 1e-7, name


@pytest.mark.parametrize("place", PLACES)
def test_tanh_stays_within_one(place: str) -> None:
    found = evaluate(np.linspace(-12.0, 12.0, COUNT, dtype=np.float32), place)["tanh"]
    assert np.abs(found).max() <= 1.0


def test_compiles_for_arm(tmp_path: Path) -> None:
    build(program(all_functions(4)), targets.get("arm64"), tmp_path / "kernel.vmfb")


def test_refuses_what_is_not_f32() -> None:
    with pytest.raises(ValueError, match="f32"):
        vm.exp(Emitter(), Value("%x", "vector<4xi32>"))
