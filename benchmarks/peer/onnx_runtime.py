"""ONNX Runtime on the CPU: f32, and int8 by its own dynamic quantisation."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from common.protocol import Array, ModelSpec, Peer, Precision, Runner, artifact_path

__all__ = ["PEERS"]

_PACKAGES = ("onnxruntime", "onnx", "onnxscript", "torch", "transformers")


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime  # type: ignore[import-not-found,unused-ignore]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.info: dict[str, Any] = {}
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        return tuple(self._session.run(None, feed))


def _build(precision: Precision, model: ModelSpec, seq_len: int, cache: Path) -> Path:
    base = artifact_path(cache, model, seq_len, "onnx", _PACKAGES, "")
    path = base.with_name(f"{base.name}-{precision}.onnx")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.onnx")
    if precision == "f32":
        import torch
        from common.modules import LOGITS, example_inputs, load_module

        torch.onnx.export(
            load_module(model),
            example_inputs(seq_len),
            temporary,
            input_names=["input_ids", "attention_mask"],
            output_names=LOGITS[model.head],
            dynamo=True,
            external_data=False,
        )
    else:
        from onnxruntime.quantization import (  # type: ignore[import-not-found,unused-ignore]
            QuantType,
            quantize_dynamic,
        )

        source = _build("f32", model, seq_len, cache)
        quantize_dynamic(source, temporary, per_channel=True, weight_type=QuantType.QInt8)
    temporary.replace(path)
    return path


def _prepare(path: Path, model: ModelSpec, seq_len: int, threads: int) -> Runner:
    return _Session(path, threads)


def _peer(precision: Precision) -> Peer:
    return Peer(
        name=f"onnxruntime-{precision}",
        title="ONNX Runtime",
        precision=precision,
        environment="peers",
        packages=_PACKAGES,
        build=partial(_build, precision),
        prepare=_prepare,
        hint="run `python benchmarks/setup_peers.py` first",
    )


PEERS = (_peer("f32"), _peer("int8"))
