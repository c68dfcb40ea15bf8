"""Make the reference workload, ``runtime_harness/workload.canao``, again.

    .venv/bin/python scripts/make_workload.py [OUT]

It is the only code of the measuring harness that was compiled: one small module for each kind of
device, which ``canao bench`` runs in turns with what it measures. It needs IREE's compiler; the
same compiler gives the same bytes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from iree.compiler import compile_str
from safetensors.numpy import save

from canao import targets
from canao.runtime_harness.bundle import Manifest, ModuleEntry, TensorSpec, write_bundle

__all__ = ["main"]

OUT = Path(__file__).resolve().parent.parent / "runtime_harness" / "workload.canao"

# Two linear layers as wide as BERT's. Their weights, 4.7 MB, are beyond most second-level caches,
# so that they ask for arithmetic and for memory as a model does.
ROWS, WIDTH, LAYERS = 64, 768, 2
PRIME = 2654435761

_X86_64_V3 = (
    *("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "sahf", "movbe", "lzcnt"),
    *("bmi", "bmi2", "avx", "f16c", "fma", "avx2"),
)
_CPUS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "x86_64": ("x86_64", "x86_64-none-linux-gnu", ()),
    "x86_64-v3": ("x86_64", "x86_64-none-linux-gnu", _X86_64_V3),
    "aarch64": ("aarch64", "aarch64-none-linux-android34", ()),
}
_GPUS = ("vulkan-llvmpipe", "vulkan-adreno", "vulkan-mali")

_FLAGS = (
    "--iree-opt-level=O2",
    # Weights are computed where the module is loaded, not carried in it.
    "--iree-opt-const-eval=false",
    "--iree-opt-const-expr-hoisting=false",
    "--iree-opt-strip-assertions",
    "--iree-vm-bytecode-module-strip-source-map=true",
    "--iree-vm-emit-polyglot-zip=false",
    "--iree-llvmcpu-debug-symbols=false",
)
# A module of a Vulkan device asks for one queue: some drivers have no more.
_ANY_QUEUE, _FIRST_QUEUE = (
    "#hal.device.affinity<@__device_0>",
    "#hal.device.affinity<@__device_0, [0]>",
)


def _text() -> str:
    """The module. A weight is a hash of its place: -0.5 to 0.5, over the root of the width."""
    row, x = f"tensor<{WIDTH}xf32>", f"tensor<{ROWS}x{WIDTH}xf32>"
    weight, weights = f"tensor<{WIDTH}x{WIDTH}xf32>", f"tensor<{LAYERS}x{WIDTH}x{WIDTH}xf32>"
    both = 'iterator_types = ["parallel", "parallel"]'
    same = "affine_map<(i,j) -> (i,j)>"
    return f"""
util.global private @weights : {weights}
util.initializer {{
  %empty = tensor.empty() : {weights}
  %filled = linalg.generic {{indexing_maps = [affine_map<(k,i,j) -> (k,i,j)>],
      iterator_types = ["parallel", "parallel", "parallel"]}} outs(%empty : {weights}) {{
  ^bb0(%out: f32):
    %k = linalg.index 0 : index
    %i = linalg.index 1 : index
    %j = linalg.index 2 : index
    %width = arith.constant {WIDTH} : i32
    %prime = arith.constant {PRIME - 2**32} : i32
    %eight = arith.constant 8 : i32
    %scale = arith.constant {1 / 2**24 / WIDTH**0.5:.9e} : f32
    %shift = arith.constant {-0.5 / WIDTH**0.5:.9e} : f32
    %k32 = arith.index_cast %k : index to i32
    %i32 = arith.index_cast %i : index to i32
    %j32 = arith.index_cast %j : index to i32
    %before = arith.muli %k32, %width : i32
    %row = arith.addi %before, %i32 : i32
    %start = arith.muli %row, %width : i32
    %place = arith.addi %start, %j32 : i32
    %hash = arith.muli %place, %prime : i32
    %bits = arith.shrui %hash, %eight : i32
    %value = arith.sitofp %bits : i32 to f32
    %scaled = arith.mulf %value, %scale : f32
    %weight = arith.addf %scaled, %shift : f32
    linalg.yield %weight : f32
  }} -> {weights}
  util.global.store %filled, @weights : {weights}
  util.return
}}
func.func @main(%row: {row}) -> {row} {{
  %zero = arith.constant 0.0 : f32
  %none = arith.constant 0 : index
  %one = arith.constant 1 : index
  %layers = arith.constant {LAYERS} : index
  %ex = tensor.empty() : {x}
  %er = tensor.empty() : {row}
  %x = linalg.generic {{indexing_maps = [affine_map<(i,j) -> (j)>, {same}], {both}}}
      ins(%row : {row}) outs(%ex : {x}) {{
  ^bb0(%value: f32, %out: f32):
    %i = linalg.index 0 : index
    %i32 = arith.index_cast %i : index to i32
    %position = arith.sitofp %i32 : i32 to f32
    %step = arith.constant {1 / ROWS} : f32
    %factor = arith.mulf %position, %step : f32
    %scaled = arith.mulf %value, %factor : f32
    linalg.yield %scaled : f32
  }} -> {x}
  %weights = util.global.load @weights : {weights}
  %last = scf.for %k = %none to %layers step %one iter_args(%in = %x) -> ({x}) {{
    %weight = tensor.extract_slice %weights[%k, 0, 0] [1, {WIDTH}, {WIDTH}] [1, 1, 1]
        : {weights} to {weight}
    %start = linalg.fill ins(%zero : f32) outs(%ex : {x}) -> {x}
    %product = linalg.matmul ins(%in, %weight : {x}, {weight}) outs(%start : {x}) -> {x}
    %kept = linalg.generic {{indexing_maps = [{same}, {same}], {both}}}
        ins(%product : {x}) outs(%ex : {x}) {{
    ^bb0(%value: f32, %out: f32):
      %rest = arith.maximumf %value, %zero : f32
      linalg.yield %rest : f32
    }} -> {x}
    scf.yield %kept : {x}
  }}
  %nothing = linalg.fill ins(%zero : f32) outs(%er : {row}) -> {row}
  %sum = linalg.generic {{indexing_maps = [affine_map<(j,i) -> (i,j)>, affine_map<(j,i) -> (j)>],
      iterator_types = ["parallel", "reduction"]}} ins(%last : {x}) outs(%nothing : {row}) {{
  ^bb0(%value: f32, %part: f32):
    %next = arith.addf %value, %part : f32
    linalg.yield %next : f32
  }} -> {row}
  return %sum : {row}
}}
"""


def _expected(row: np.ndarray) -> np.ndarray:
    """What the module gives, by NumPy in float64."""
    places = np.arange(LAYERS * WIDTH * WIDTH, dtype=np.uint32)
    bits = (places * np.uint32(PRIME)) >> np.uint32(8)
    weights = ((bits / 2**24 - 0.5) / WIDTH**0.5).reshape(LAYERS, WIDTH, WIDTH)
    x = row[None, :].astype(np.float64) * (np.arange(ROWS) / ROWS)[:, None]
    for weight in weights:
        x = np.maximum(x @ weight, 0)
    return x.sum(axis=0).astype(np.float32)


def _cpu_module(triple: str, features: tuple[str, ...]) -> bytes:
    flags = [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        f"--iree-llvmcpu-target-triple={triple}",
        "--iree-llvmcpu-target-cpu=generic",
        *_FLAGS,
    ]
    if features:
        listed = ",".join(f"+{feature}" for feature in features)
        flags.append(f"--iree-llvmcpu-target-cpu-features={listed}")
    return bytes(compile_str(_text(), extra_args=flags))


def _gpu_module(gpu: str) -> bytes:
    flags = ["--iree-hal-target-device=vulkan", f"--iree-vulkan-target={gpu}", *_FLAGS]
    flow = compile_str(_text(), extra_args=[*flags, "--compile-to=flow"]).decode()
    pinned = re.sub(re.escape(_ANY_QUEUE), _FIRST_QUEUE, flow)
    return bytes(compile_str(pinned, extra_args=[*flags, "--compile-from=flow"]))


def main(out: Path = OUT) -> None:
    """Compile every module and write the bundle."""
    entries: list[ModuleEntry] = []
    files: dict[str, bytes | Path] = {}

    def add(name: str, code: bytes, **fields: object) -> None:
        file = f"modules/{name}.vmfb"
        files[file] = code
        entries.append(ModuleEntry(target=name, seq_len=ROWS, batch=1, file=file, **fields))
        print(f"{name}: {len(code)} bytes")

    for name, (arch, triple, features) in _CPUS.items():
        code = _cpu_module(triple, features)
        add(name, code, kind="cpu", arch=arch, features=features)
    for name in _GPUS:
        add(name, _gpu_module(targets.get(name).gpu), kind="vulkan", arch="")
    row = np.random.default_rng(0).standard_normal(WIDTH).astype(np.float32)
    files[f"reference/{ROWS}.safetensors"] = save({"s/in/row": row, "s/out/sum": _expected(row)})
    manifest = Manifest(
        canao="0.1.0",
        model={"name": "reference workload", "rows": ROWS, "width": WIDTH},
        precision="f32",
        fusion="none",
        inputs=(TensorSpec(name="row", dtype="float32", shape=(WIDTH,)),),
        outputs=(TensorSpec(name="sum", dtype="float32", shape=(WIDTH,)),),
        modules=tuple(entries),
        tolerance={"max_abs_rel": 1e-4},
        reference={str(ROWS): f"reference/{ROWS}.safetensors"},
    )
    bundle = write_bundle(out, manifest, files)
    print(f"{bundle.path}: {out.stat().st_size} bytes, {bundle.digest}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
