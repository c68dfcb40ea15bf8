"""Tiny models written in MLIR, compiled for every device, in bundles with true references."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from canao.errors import CanaoError
from canao.runtime_harness import aarch64_runtime, devices
from canao.runtime_harness.bundle import Bundle, Manifest, ModuleEntry, TensorSpec, write_bundle
from canao.runtime_harness.device import Device
from canao.targets import machine_arch

VOCAB, WIDTH = 16, 4
TABLE = np.random.default_rng(5).standard_normal((VOCAB, WIDTH)).astype(np.float32)

_ANY, _FIRST = "#hal.device.affinity<@__device_0>", "#hal.device.affinity<@__device_0, [0]>"
_CPU = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
_FLAGS = {
    "host": [*_CPU, "--iree-llvmcpu-target-cpu=generic"],
    "arm64": [
        *_CPU,
        "--iree-llvmcpu-target-triple=aarch64-none-linux-android34",
        "--iree-llvmcpu-target-cpu-features=+dotprod",
    ],
    "vulkan-llvmpipe": ["--iree-hal-target-device=vulkan", "--iree-vulkan-target=llvmpipe"],
}


@cache
def compiled(text: str, target: str) -> bytes:
    """Compile MLIR for one of the targets; on Vulkan, onto one queue."""
    from iree.compiler import compile_str

    flags = [*_FLAGS[target], "--iree-opt-strip-assertions"]
    if not target.startswith("vulkan"):
        return bytes(compile_str(text, extra_args=flags))
    flow = compile_str(text, extra_args=[*flags, "--compile-to=flow"]).decode()
    pinned = flow.replace(_ANY, _FIRST)
    return bytes(compile_str(pinned, extra_args=[*flags, "--compile-from=flow"]))


def encoder(seq_len: int, batch: int = 1) -> str:
    """MLIR of an encoder: hidden = table[ids] * mask, pooled = its sum, positive = pooled > 0."""
    ids, hidden = f"tensor<{batch}x{seq_len}xi32>", f"tensor<{batch}x{seq_len}x{WIDTH}xf32>"
    pooled, flags = f"tensor<{batch}x{WIDTH}xf32>", f"tensor<{batch}x{WIDTH}xi1>"
    table = f"tensor<{VOCAB}x{WIDTH}xf32>"
    return f"""
util.global private @table = #flow.parameter.named<"model"::"table"> : {table}
func.func @main(%ids: {ids}, %mask: {ids}) -> ({hidden}, {pooled}, {flags}) {{
  %table = util.global.load @table : {table}
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : {hidden}
  %hidden = linalg.generic {{
    indexing_maps = [affine_map<(b,s,d) -> (b,s)>, affine_map<(b,s,d) -> (b,s)>,
                     affine_map<(b,s,d) -> (b,s,d)>],
    iterator_types = ["parallel", "parallel", "parallel"]}}
    ins(%ids, %mask : {ids}, {ids}) outs(%e0 : {hidden}) {{
  ^bb0(%id: i32, %m: i32, %out: f32):
    %row = arith.index_cast %id : i32 to index
    %column = linalg.index 2 : index
    %value = tensor.extract %table[%row, %column] : {table}
    %weight = arith.sitofp %m : i32 to f32
    %product = arith.mulf %value, %weight : f32
    linalg.yield %product : f32
  }} -> {hidden}
  %e1 = tensor.empty() : {pooled}
  %start = linalg.fill ins(%zero : f32) outs(%e1 : {pooled}) -> {pooled}
  %pooled = linalg.generic {{
    indexing_maps = [affine_map<(b,d,s) -> (b,s,d)>, affine_map<(b,d,s) -> (b,d)>],
    iterator_types = ["parallel", "parallel", "reduction"]}}
    ins(%hidden : {hidden}) outs(%start : {pooled}) {{
  ^bb0(%x: f32, %sum: f32):
    %next = arith.addf %x, %sum : f32
    linalg.yield %next : f32
  }} -> {pooled}
  %zeros = linalg.fill ins(%zero : f32) outs(%e1 : {pooled}) -> {pooled}
  %positive = arith.cmpf ogt, %pooled, %zeros : {pooled}
  return %hidden, %pooled, %positive : {hidden}, {pooled}, {flags}
}}
"""


MIXED = """
func.func @main(%x: tensor<2x3xf32>, %f: tensor<2x3xi1>, %h: tensor<4xbf16>, %n: tensor<3xi64>)
    -> (tensor<2x3xf32>, tensor<2x3xi1>, tensor<4xbf16>, tensor<3xi64>) {
  %true = arith.constant dense<true> : tensor<2x3xi1>
  %one = arith.constant dense<1> : tensor<3xi64>
  %double = arith.addf %x, %x : tensor<2x3xf32>
  %y = arith.select %f, %double, %x : tensor<2x3xi1>, tensor<2x3xf32>
  %g = arith.xori %f, %true : tensor<2x3xi1>
  %k = arith.addf %h, %h : tensor<4xbf16>
  %m = arith.addi %n, %one : tensor<3xi64>
  return %y, %g, %k, %m : tensor<2x3xf32>, tensor<2x3xi1>, tensor<4xbf16>, tensor<3xi64>
}
"""

# Each round depends on the one before, so that no compiler shortens it: some 5 ns each.
SLOW = """
func.func @main(%rounds: tensor<1xi32>) -> tensor<1xf32> {
  %empty = tensor.empty() : tensor<1xf32>
  %result = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>],
    iterator_types = ["parallel"]} ins(%rounds : tensor<1xi32>) outs(%empty : tensor<1xf32>) {
  ^bb0(%count: i32, %out: f32):
    %low = arith.constant 0 : index
    %step = arith.constant 1 : index
    %high = arith.index_cast %count : i32 to index
    %begin = arith.constant 0.3 : f32
    %one = arith.constant 1.0 : f32
    %rate = arith.constant 3.9 : f32
    %end = scf.for %i = %low to %high step %step iter_args(%x = %begin) -> (f32) {
      %rest = arith.subf %one, %x : f32
      %part = arith.mulf %x, %rest : f32
      %next = arith.mulf %rate, %part : f32
      scf.yield %next : f32
    }
    linalg.yield %end : f32
  } -> tensor<1xf32>
  return %result : tensor<1xf32>
}
"""

ENCODER_INPUTS = (
    TensorSpec(name="input_ids", dtype="int32", shape=("batch", "seq")),
    TensorSpec(name="attention_mask", dtype="int32", shape=("batch", "seq")),
)
ENCODER_OUTPUTS = (
    TensorSpec(name="hidden", dtype="float32", shape=("batch", "seq", WIDTH)),
    TensorSpec(name="pooled", dtype="float32", shape=("batch", WIDTH)),
    TensorSpec(name="positive", dtype="bool", shape=("batch", WIDTH)),
)
MIXED_INPUTS = (
    TensorSpec(name="x", dtype="float32", shape=(2, 3)),
    TensorSpec(name="f", dtype="bool", shape=(2, 3)),
    TensorSpec(name="h", dtype="bfloat16", shape=(4,)),
    TensorSpec(name="n", dtype="int64", shape=(3,)),
)


def expected(ids: Any, mask: Any = None) -> dict[str, np.ndarray[Any, Any]]:
    """What the encoder gives, by NumPy."""
    ids = np.asarray(ids)
    mask = np.ones(ids.shape) if mask is None else np.asarray(mask)
    hidden = (TABLE[ids] * mask[..., None]).astype(np.float32)
    pooled = hidden.sum(axis=1, dtype=np.float32)
    return {"hidden": hidden, "pooled": pooled, "positive": pooled > 0}


def entry(target: str, seq_len: int, *, batch: int = 1, **changes: Any) -> ModuleEntry:
    """The manifest's entry of a module compiled here."""
    vulkan = target.startswith("vulkan")
    arch = {"host": machine_arch(), "arm64": "aarch64"}.get(target, "")
    found = ModuleEntry(
        target=target,
        seq_len=seq_len,
        batch=batch,
        file=f"modules/{target}-{seq_len}.vmfb",
        kind="vulkan" if vulkan else "cpu",
        features=("dotprod",) if target == "arm64" else (),
        arch=arch,
    )
    return dataclasses.replace(found, **changes)


def write(
    path: Path,
    modules: Iterable[tuple[ModuleEntry, bytes]],
    *,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    files: dict[str, bytes | Path] | None = None,
    **changes: Any,
) -> Bundle:
    """Write a bundle of compiled modules."""
    modules = list(modules)
    manifest = Manifest(
        canao="0.1.0",
        model={"name": "tiny"},
        precision="f32",
        fusion="auto",
        inputs=inputs,
        outputs=outputs,
        modules=tuple(module for module, _ in modules),
        tolerance={"max_abs_rel": 1e-4},
        **changes,
    )
    code: dict[str, bytes | Path] = {module.file: data for module, data in modules}
    return write_bundle(path, manifest, {**code, **(files or {})})


def encoder_files(seq_lens: Iterable[int], batch: int = 1) -> dict[str, bytes | Path]:
    """Weights, and two reference samples for each length: one full, one with padding."""
    files: dict[str, bytes | Path] = {"weights.safetensors": save({"table": TABLE})}
    random = np.random.default_rng(9)
    for seq_len in seq_lens:
        tensors: dict[str, np.ndarray[Any, Any]] = {}
        for name, real in (("full", seq_len), ("padded", seq_len - 3)):
            ids = random.integers(0, VOCAB, (batch, seq_len)).astype(np.int32)
            mask = np.ones_like(ids)
            mask[:, real:] = 0
            tensors |= {f"{name}/in/input_ids": ids, f"{name}/in/attention_mask": mask}
            tensors |= {f"{name}/out/{key}": value for key, value in expected(ids, mask).items()}
        files[f"reference/{seq_len}.safetensors"] = save(tensors)
    return files


def write_encoder(
    path: Path, targets: Iterable[str], seq_lens: tuple[int, ...] = (8, 16), batch: int = 1
) -> Bundle:
    """Write the encoder compiled for targets and lengths."""
    return write(
        path,
        [
            (entry(target, n, batch=batch), compiled(encoder(n, batch), target))
            for target in targets
            for n in seq_lens
        ],
        inputs=ENCODER_INPUTS,
        outputs=ENCODER_OUTPUTS,
        files=encoder_files(seq_lens, batch),
        vocab_size=VOCAB,
        reference={str(n): f"reference/{n}.safetensors" for n in seq_lens},
    )


def needed(name: str) -> Device:
    """Return a device; if it is not here, skip the test, or fail it where CI is set."""
    device = devices.get(name)
    info = device.info()
    if name == "qemu" and not info.available and aarch64_runtime.find() is None:
        try:
            aarch64_runtime.ensure()
        except CanaoError as error:
            print(error)
        info = device.info()
    if info.available:
        return device
    reason = f"{name} is not here: {info.missing} {info.remedy}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
