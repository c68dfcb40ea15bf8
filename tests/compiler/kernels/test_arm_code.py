"""What code products become on ARM: the instructions of the inner loop, and how many are run."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from canao import targets
from canao.compiler.flags import iree_flags
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.counted import Counted
from canao.compiler.kernels.engines.neon import NeonF32, NeonInt8
from canao.compiler.kernels.engines.neon_matrix import NeonMatrixBf16, NeonMatrixInt8
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.instruction_counts import dense_instructions, sparse_instructions
from canao.compiler.kernels.product import ProductShape, product_kernel
from canao.compiler.kernels.sparse_format import layout_for
from canao.compiler.kernels.sparse_product import sparse_product_kernel
from canao.compiler.kernels.trial import build, program
from canao.targets import Target

from .arm_counting import arm_counting, counter
from .batch import arm_tool
from .product_cases import IDENTITY

# The engine, its instruction, and the multiplications of one of them.
ENGINES: list[tuple[Engine, str, int]] = [
    (NeonF32(), "fmla", 4),
    (NeonInt8(), "sdot", 16),
    (NeonMatrixInt8(), "smmla", 32),
    (NeonMatrixBf16(), "bfmmla", 16),
]
ids = [engine.name for engine, _, _ in ENGINES]
# Whole blocks and panels, two of each.
SHAPE = ProductShape(8, 64, 48)
# Neither rows nor depth nor outputs fill their last block; outputs do to the last register, and
# do not.
TAILS = [ProductShape(7, 50, 47), ProductShape(5, 70, 25), ProductShape(1, 40, 3)]


def target_of(engine: Engine) -> Target:
    return next(
        target
        for target in map(targets.get, ("arm64", "arm64-i8mm"))
        if set(engine.features) <= set(target.features)
    )


def inner_loops(engine: Engine, kernel: Kernel, folder: Path) -> list[list[str]]:
    """The instructions of each innermost loop of a kernel, as the compiler prints them."""
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    flags = iree_flags(target_of(engine))
    dump = f"--iree-hal-dump-executable-intermediates-to={folder}"
    command = [str(compiler), "-", "-o", os.devnull, *flags, dump]
    text = program(kernel)
    subprocess.run(command, input=text, text=True, check=True, timeout=120, capture_output=True)
    (listing,) = folder.glob("*.s")
    lines = [line.split("//")[0].strip() for line in listing.read_text().splitlines()]
    lines = [line for line in lines if line and not re.match(r"\.(?!L\w+:)", line)]
    places = {line[:-1]: at for at, line in enumerate(lines) if line.endswith(":")}
    loops = []
    for at, line in enumerate(lines):
        branch = re.match(r"(?:b\.\w+|cbn?z\s+\w+,)\s+(\.L\w+)", line)
        if branch and places[branch[1]] < at:
            inside = lines[places[branch[1]] + 1 : at + 1]
            if not any(one.endswith(":") for one in inside):
                loops.append(inside)
    return loops


@pytest.mark.parametrize(("engine", "instruction", "multiplies"), ENGINES, ids=ids)
def test_the_inner_loop_is_little_else_than_products(
    engine: Engine, instruction: str, multiplies: int, tmp_path: Path
) -> None:
    kernel = product_kernel(engine, ProductShape(128, 3072, 768), IDENTITY)
    found = loop_of(engine, kernel, instruction, tmp_path)
    steps = engine.padded_depth(1)
    products = engine.block_rows * engine.panel * steps // multiplies
    assert found[instruction] == products
    # Nothing is spilled; two registers of weights a load, one of activations.
    assert not [name for name in found if name.startswith(("st", "mov", "dup", "ins"))]
    bits = {"int8": 8, "bf16": 16, "f32": 32}[engine.precision]
    loads = found["ldp"] + found["ldr"] + found["ldur"]
    assert loads <= engine.block_rows + engine.panel * steps * bits / 256
    zips = found["zip1"] + found["zip2"]
    assert zips == (engine.block_rows if engine.row_multiple == 2 else 0)
    assert found.total() - products - loads - zips <= 5
    assert isinstance(engine, Counted)
    assert found.total() == engine.round_instructions(steps // engine.group)


@pytest.mark.parametrize(("engine", "instruction", "multiplies"), ENGINES, ids=ids)
def test_rules_know_what_a_block_that_survives_takes(
    engine: Engine, instruction: str, multiplies: int, tmp_path: Path
) -> None:
    layout = layout_for(engine, 768, 3072)
    stored = layout.panels * layout.columns // 4
    kernel = sparse_product_kernel(engine, 128, layout, stored, IDENTITY)
    found = loop_of(engine, kernel, instruction, tmp_path)
    assert found[instruction] == engine.block_rows * layout.block_size // multiplies
    epilogue = sparse_instructions(engine, 3072, layout.group_in, 0)
    told = sparse_instructions(engine, 3072, layout.group_in, 1) - epilogue
    block = told / layout.columns * engine.block_rows * engine.panel
    assert found.total() == pytest.approx(block, abs=1)
    dense = dense_instructions(engine, 3072)
    assert sparse_instructions(engine, 3072, layout.group_in, 1) > dense


def loop_of(engine: Engine, kernel: Kernel, instruction: str, folder: Path) -> Counter[str]:
    """What the one inner loop with an instruction is made of."""
    loops = [
        Counter(line.split()[0] for line in loop)
        for loop in inner_loops(engine, kernel, folder)
        if any(line.startswith(f"{instruction}\t") for line in loop)
    ]
    assert len(loops) == 1
    return loops[0]


@pytest.mark.parametrize(("engine", "instruction", "multiplies"), ENGINES, ids=ids)
def test_every_multiplication_is_run_once(
    engine: Engine, instruction: str, multiplies: int, tmp_path: Path
) -> None:
    found = executed(engine, SHAPE, tmp_path)
    least = SHAPE.multiply_adds // multiplies
    # The epilogue multiplies by scale and weight scale: one FMLA for each vector.
    epilogue = SHAPE.rows * SHAPE.outputs // 4 if engine.precision == "int8" else 0
    assert {name: found[name] for name in ("sdot", "smmla", "bfmmla") if found[name]} == (
        {instruction: least} if instruction != "fmla" else {}
    )
    assert found["fmla"] == (least if instruction == "fmla" else epilogue)
    assert found["other"] <= 1
    assert found.total() >= least


@pytest.mark.parametrize("shape", TAILS, ids=lambda s: f"{s.rows}x{s.depth}x{s.outputs}")
@pytest.mark.parametrize(("engine", "instruction", "multiplies"), ENGINES, ids=ids)
def test_tails_take_what_their_padding_says_and_no_more(
    engine: Engine, instruction: str, multiplies: int, shape: ProductShape, tmp_path: Path
) -> None:
    rows, depth = engine.padded_rows(shape.rows), engine.padded_depth(shape.depth)
    outputs = engine.panels(shape.outputs) * engine.panel
    # Of the last panel, registers in which no sum is needed are left out.
    register = engine.lanes // engine.row_multiple
    outputs -= (outputs - shape.outputs) // register * register
    found = executed(engine, shape, tmp_path)
    assert found[instruction] * multiplies == rows * depth * outputs
    others = {"sdot", "smmla", "bfmmla"} - {instruction}
    assert not [name for name in others if found[name]]


def executed(engine: Engine, shape: ProductShape, folder: Path) -> Counter[str]:
    """How many instructions of each class a product executes."""
    counting = counter()
    tool = arm_tool("iree-run-module")
    kernel = product_kernel(engine, shape, IDENTITY)
    module = folder / "product.vmfb"
    build(program(kernel), target_of(engine), module)
    inputs = ["x".join(map(str, (*i.shape, i.element))) for i in kernel.inputs]
    flags = [f"--module={module}", "--function=main", "--device=local-sync", "--output="]
    found: Counter[str] = counting.count([tool, *flags, *(f"--input={i}=1" for i in inputs)])
    return found


@pytest.mark.parametrize(
    ("word", "name"),
    [
        (0x4E829420, "sdot"),
        (0x4FA2E020, "sdot"),
        (0x4E82A420, "smmla"),
        (0x6E42EC20, "bfmmla"),
        (0x4E22CC20, "fmla"),
        (0x4FA21020, "fmla"),
        (0x3DC00400, "load vector"),
        (0x3CC10401, "load vector"),
        (0xAD400400, "load vector pair"),
        (0xAC000400, "store vector pair"),
        (0x3D800000, "store vector"),
        (0xF9400000, "load or store"),
        (0xA9BF7BFD, "load or store"),
        (0x4EC23820, "vector"),
        (0x91000421, "integer"),
        (0xEB02003F, "integer"),
        (0x54FFFFE3, "branch"),
        (0xD65F03C0, "branch"),
    ],
)
def test_classes_of_instructions(word: int, name: str) -> None:
    assert arm_counting().classify(word) == name
