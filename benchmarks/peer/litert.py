"""LiteRT (formerly TensorFlow Lite), f32 and dynamic-range int8, through its XNNPACK delegate.

The PyTorch model is converted by litert-torch; int8 is the quantizer's own recipe for 8-bit
weights and activations quantised on the fly (`dynamic_wi8_afp32`), which XNNPACK runs as
int8 x int8 products.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from common.protocol import Array, ModelSpec, Peer, Runner, artifact_path

__all__ = ["PEERS"]

_PACKAGES = ("ai-edge-litert", "litert-torch", "ai-edge-quantizer", "torch", "transformers")


class _Interpreter:
    def __init__(self, path: Path, seq_len: int, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found,unused-ignore]

        self.info: dict[str, Any] = {}
        self._interpreter = Interpreter(str(path), num_threads=threads)
        # A signature names its tensors "args_0" ..., in the order of forward()'s arguments.
        (signature,) = self._interpreter.get_signature_list()
        runner = self._interpreter.get_signature_runner(signature)
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        self._ids, self._mask = (inputs[name]["index"] for name in sorted(inputs))
        self._outputs = [outputs[name]["index"] for name in sorted(outputs)]
        del runner
        self._interpreter.allocate_tensors()

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        interpreter = self._interpreter
        interpreter.set_tensor(self._ids, input_ids)
        interpreter.set_tensor(self._mask, attention_mask)
        interpreter.invoke()
        return tuple(map(interpreter.get_tensor, self._outputs))


def _build(precision: str, model: ModelSpec, seq_len: int, cache: Path) -> Path:
    base = artifact_path(cache, model, seq_len, "litert", _PACKAGES, "")
    path = base.with_suffix(f".{precision}.tflite")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    if precision == "f32":
        import litert_torch  # type: ignore[import-not-found,unused-ignore]
        from common.modules import example_inputs, load_module

        litert_torch.convert(load_module(model), example_inputs(seq_len)).export(str(temporary))
    else:
        from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found,unused-ignore]

        source = _build("f32", model, seq_len, cache)
        quantized = quantizer.Quantizer(str(source), recipe.dynamic_wi8_afp32()).quantize()
        quantized.export_model(str(temporary), overwrite=True)
    temporary.replace(path)
    return path


def _prepare(path: Path, model: ModelSpec, seq_len: int, threads: int) -> Runner:
    return _Interpreter(path, seq_len, threads)


_HINT = "run `python benchmarks/setup_peers.py` first"

PEERS = (
    Peer(
        name="litert-f32",
        title="LiteRT",
        precision="f32",
        environment="peers",
        packages=_PACKAGES,
        build=partial(_build, "f32"),
        prepare=_prepare,
        hint=_HINT,
    ),
    Peer(
        name="litert-int8",
        title="LiteRT",
        precision="int8",
        environment="peers",
        packages=_PACKAGES,
        build=partial(_build, "int8"),
        prepare=_prepare,
        hint=_HINT,
    ),
)
