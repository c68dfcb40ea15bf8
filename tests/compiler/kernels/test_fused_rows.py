"""Kernels fused by rows: to the bit what they are one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import iree.runtime as runtime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.convert import convert_kernel
from canao.compiler.kernels.engines.avx512 import Avx512Int8
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import engines, fitted
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel, Operand
from canao.compiler.kernels.fused_rows import Step, block_rows, fused_rows
from canao.compiler.kernels.normalize import Output, layer_norm_kernel
from canao.compiler.kernels.product import ProductShape, product_kernel
from canao.compiler.kernels.quantize import Form, quantize_kernel
from canao.compiler.kernels.trial import build
from canao.targets import Target

from ...profiles import compiling
from .batch import ARM, load

_Array = np.ndarray[Any, Any]

HOST = targets.get("host")
_PLAIN = tuple(f for f in HOST.features if not f.startswith("amx"))
# Tiles where there are such, and the widest vectors that serve without them.
TILES = [e for p in ("int8", "bf16") for e in engines(HOST.features, p) if "amx" in e.name]
HERE = [*TILES, engines(_PLAIN, "int8")[0]]
DTYPES = {"f32": np.float32, "i8": np.int8, "i16": np.int16}


@dataclasses.dataclass(frozen=True)
class Sizes:
    rows: int
    width: int
    inner: int


def chain(engine: Engine, sizes: Sizes, lanes: int) -> tuple[list[Step], dict[int, str]]:
    """x to q; q W + x; its norm, narrow; that times V. Tensor 0 is x, named ones are inputs."""
    kind, rows = type(engine), sizes.rows
    up = fitted(kind, sizes.inner, rows)
    down = fitted(kind, sizes.width, rows)
    form: Form = "s8" if engine.signed else "u8"
    integer = engine.precision == "int8"
    padding = {"padded_rows": down.padded_rows(rows), "row_stride": down.row_stride(sizes.width)}
    narrow = (
        quantize_kernel(rows, sizes.width, lanes=lanes, form=form, **padding)
        if integer
        else convert_kernel(rows, sizes.width, lanes=lanes, **padding)
    )
    outputs: tuple[Output, ...] = ("f32", "q" if integer else "bf16")
    norm = layer_norm_kernel(
        rows, sizes.width, lanes=lanes, eps=1e-5, outputs=outputs, form=form, **padding
    )
    square = ProductShape(rows, sizes.width, sizes.width)
    wide = ProductShape(rows, sizes.width, sizes.inner)
    first = product_kernel(down, square, Epilogue(residual=True, accurate=False))
    last = product_kernel(up, wide, Epilogue(activation="gelu", accurate=False))
    names: dict[int, str] = {0: "x"}

    def fresh(name: str) -> int:
        names[len(names)] = name
        return len(names) - 1

    steps: list[Step] = []

    def step(kernel: Kernel, known: dict[str, int]) -> dict[str, int]:
        inputs = tuple(known[o.name] if o.name in known else fresh(o.name) for o in kernel.inputs)
        outputs = tuple(fresh("") for _ in kernel.outputs)
        steps.append(Step(kernel, inputs, outputs))
        return {o.name: n for o, n in zip(kernel.outputs, outputs, strict=True)}

    codes = step(narrow, {"X": 0})
    activations = {"activations": codes["Q"], **({"row_scales": codes["S"]} if integer else {})}
    summed = step(first, {**activations, "residual": 0})
    normal = step(norm, {"X": summed["result"]})
    activations = {"activations": normal["Q" if integer else "B"]}
    step(last, {**activations, **({"row_scales": normal["S"]} if integer else {})})
    return steps, names


def read_within(steps: Sequence[Step]) -> list[int]:
    """The tensors that one step writes for others to read."""
    read = {number for step in steps for number in step.inputs}
    return [number for step in steps for number in step.outputs if number in read]


def twice(
    steps: Sequence[Step], rows_at_once: int, private: Collection[int] = ()
) -> tuple[str, list[Operand], int]:
    """A module that returns every output of the steps as they are, then of the fused kernel,
    without ``private`` ones."""
    fused = fused_rows(steps, rows_at_once=rows_at_once, private=private)
    operands = {
        number: operand
        for step in steps
        for number, operand in zip(step.inputs, step.kernel.inputs, strict=True)
    }
    written = [number for step in steps for number in step.outputs]
    read = [number for number in operands if number not in written]
    lines = []
    values = {number: f"%in{number}" for number in read}
    for place, step in enumerate(steps):
        count = len(step.outputs)
        left = f"%s{place}:{count}" if count > 1 else f"%s{place}"
        lines.append(f"{left} = {step.kernel.call([values[n] for n in step.inputs])}")
        for at, number in enumerate(step.outputs):
            values[number] = f"%s{place}#{at}" if count > 1 else f"%s{place}"
    lines.append(f"%fused:{len(written)} = {fused.call([values[n] for n in read])}")
    known = [(place, number) for place, number in enumerate(written) if number not in private]
    returned = [values[n] for _, n in known] + [f"%fused#{place}" for place, _ in known]
    types = [fused.outputs[place].tensor for place, _ in known]
    declared = {kernel.name: kernel for kernel in (*(s.kernel for s in steps), fused)}
    arguments = ", ".join(f"%in{n}: {operands[n].tensor}" for n in read)
    text = (
        "".join(kernel.declaration() for kernel in declared.values())
        + f"func.func @main({arguments}) -> ({', '.join(types * 2)}) {{\n"
        + "\n".join(lines)
        + f"\nreturn {', '.join(returned)} : {', '.join(types * 2)}\n}}\n"
    )
    return text, [operands[n] for n in read], len(known)


def drawn(operands: Sequence[Operand], seed: int) -> list[_Array]:
    """Any weights; rows of x of many sizes, constant and zero ones among them."""
    rng = np.random.default_rng(seed)
    found: list[_Array] = []
    for place, operand in enumerate(operands):
        if operand.element == "i8":
            values = rng.integers(-128, 128, operand.shape)
        elif operand.element == "i16":
            exact = rng.standard_normal(operand.shape).astype(np.float32)
            values = exact.view(np.uint32) >> 16
        else:
            values = rng.standard_normal(operand.shape) * 0.1
        array = values.astype(DTYPES[operand.element])
        if place == 0:
            sizes = rng.choice(np.array([0, 1e-20, 1, 1e4], np.float32), (operand.shape[0], 1))
            array = array * sizes + rng.choice(np.array([0, 3], np.float32), sizes.shape)
        found.append(np.ascontiguousarray(array))
    return found


def check(steps: Sequence[Step], results: Sequence[_Array], rows: int) -> None:
    apart, fused = results[: len(results) // 2], results[len(results) // 2 :]
    for before, after in zip(apart, fused, strict=True):
        kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[before.itemsize]
        np.testing.assert_array_equal(before[:rows].view(kind), after[:rows].view(kind))
    assert np.isfinite(fused[-1][:rows]).all()
    assert np.abs(fused[-1][:rows]).max() > 0


def run_here(text: str, arguments: Sequence[_Array], folder: Path, target: Target) -> list[_Array]:
    build(text, target, folder / "module.vmfb")
    config = runtime.Config("local-task")  # work-groups at once, as far as there are cores
    context = runtime.SystemContext(config=config)
    program = (folder / "module.vmfb").read_bytes()
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, program))
    return [np.array(r.to_host()) for r in context.modules.module["main"](*arguments)]


@pytest.mark.parametrize("engine", HERE, ids=[engine.name for engine in HERE])
@compiling()
@given(
    sizes=st.builds(Sizes, st.integers(1, 150), st.integers(16, 90), st.integers(16, 120)),
    at_once=st.sampled_from([16, 32, 64]),
    hidden=st.sets(st.integers(0, 5)),
    seed=st.integers(0, 2**31),
)
def test_fused_is_the_same_to_the_bit(
    engine: Engine, sizes: Sizes, at_once: int, hidden: set[int], seed: int, tmp_path_factory: Any
) -> None:
    steps, _ = chain(engine, sizes, 16 if "avx512f" in HOST.features else 8)
    private = [number for place, number in enumerate(read_within(steps)) if place in hidden]
    text, operands, count = twice(steps, at_once, private)
    results = run_here(text, drawn(operands, seed), tmp_path_factory.mktemp("fused"), HOST)
    assert len(results) == 2 * count
    check(steps, results, sizes.rows)


@pytest.mark.parametrize("name", ARM)
def test_fused_is_the_same_on_arm(name: str) -> None:
    target = targets.get(name)
    engine = engines(target.features, "int8")[0]
    steps, _ = chain(engine, Sizes(45, 50, 70), 4)
    text, operands, count = twice(steps, 32, read_within(steps)[1:])
    results = load(text, 2 * count, target)(drawn(operands, 7))
    check(steps, results, 45)


@given(st.integers(33, 5000), st.sampled_from([1, 2, 16]))
def test_there_are_enough_work_groups_and_not_too_many(rows: int, multiple: int) -> None:
    at_once = block_rows(rows, multiple)
    groups = -(-rows // at_once)
    assert at_once % multiple == 0
    assert 2 <= groups <= 8
    assert groups >= min(4, rows // 32)


def test_what_reads_other_rows_does_not_fuse() -> None:
    norm = layer_norm_kernel(40, 32, lanes=8, eps=1e-5)
    with pytest.raises(ValueError, match="more of gamma than its rows"):
        # The first one's result stands where the second expects a vector for all rows.
        fused_rows([Step(norm, (0, 1, 2), (3,)), Step(norm, (0, 3, 2), (4,))], rows_at_once=32)
    other = layer_norm_kernel(41, 32, lanes=8, eps=1e-5)
    with pytest.raises(ValueError, match="numbers of rows"):
        fused_rows([Step(norm, (0, 1, 2), (3,)), Step(other, (4, 1, 2), (5,))], rows_at_once=32)


def test_what_is_private_has_room_for_a_part_of_each_work_group() -> None:
    engine = Avx512Int8()  # eight rows meet a panel
    steps, _ = chain(engine, Sizes(128, 48, 96), 16)
    (summed,) = steps[1].outputs
    operands = [operand for step in steps for operand in step.kernel.outputs]
    fused = fused_rows(steps, rows_at_once=32, private=[summed])
    shapes = [operand.shape for operand in operands]
    place = [number for step in steps for number in step.outputs].index(summed)
    assert shapes[place] == (128, 48)
    shapes[place] = (4 * 8, 48)
    assert [operand.shape for operand in fused.outputs] == shapes
    assert fused.name != fused_rows(steps, rows_at_once=32).name


def test_names_tell_fused_kernels_apart() -> None:
    norm = layer_norm_kernel(40, 32, lanes=8, eps=1e-5)
    wide = layer_norm_kernel(40, 32, lanes=16, eps=1e-5)
    first = Step(norm, (0, 1, 2), (3,))
    kernels = [
        fused_rows([first, Step(kernel, (source, 1, 2), (4,))], rows_at_once=rows)
        for kernel in (norm, wide)
        for source in (0, 3)
        for rows in (16, 32)
    ]
    texts = {kernel.name: kernel.declaration() for kernel in kernels}
    assert len(texts) == len(kernels) == len(set(texts.values()))
