"""OpenVINO on the CPU, f32 and bf16 (its own choice where the processor multiplies bf16)."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from common.protocol import Array, ModelSpec, Peer, Precision, Runner, artifact_path

__all__ = ["PEERS"]

_PACKAGES = ("openvino", "torch", "transformers")


class _Compiled:
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        openvino = _openvino()
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", properties)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.info: dict[str, Any] = {"inference_precision": used}
        self._request = compiled.create_infer_request()

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        results = self._request.infer([input_ids, attention_mask])
        return tuple(results[index] for index in range(len(results)))


def _openvino() -> Any:
    # It reports its use over the network, unless the package that does so is missing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino  # type: ignore[import-not-found,unused-ignore]

    return openvino


def _build(model: ModelSpec, seq_len: int, cache: Path) -> Path:
    path = artifact_path(cache, model, seq_len, "openvino", _PACKAGES, "").with_suffix(".xml")
    if path.exists():
        return path
    openvino = _openvino()
    from common.modules import example_inputs, load_module

    shape = openvino.PartialShape([1, seq_len])
    converted = openvino.convert_model(
        load_module(model),
        example_input=example_inputs(seq_len),
        input=[(shape, openvino.Type.i32)] * 2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.xml")
    openvino.save_model(converted, temporary, compress_to_fp16=False)
    temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))
    temporary.replace(path)
    return path


def _prepare(
    precision: Precision, path: Path, model: ModelSpec, seq_len: int, threads: int
) -> Runner:
    return _Compiled(path, precision, threads)


def _peer(precision: Precision) -> Peer:
    return Peer(
        name=f"openvino-{precision}",
        title="OpenVINO",
        precision=precision,
        environment="peers",
        packages=_PACKAGES,
        build=_build,
        prepare=partial(_prepare, precision),
        hint="run `python benchmarks/setup_peers.py` first",
    )


PEERS = (_peer("f32"), _peer("bf16"))
