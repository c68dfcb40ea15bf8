"""PyTorch itself, uncompiled, f32: the reference whose numbers everyone must match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.protocol import Array, ModelSpec, Peer, Runner

__all__ = ["PEERS"]


class _Eager:
    def __init__(self, model: ModelSpec, threads: int) -> None:
        import torch
        from common.modules import load_module

        torch.set_num_threads(threads)
        self.info: dict[str, Any] = {}
        self._torch = torch
        self._module = load_module(model)

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        torch = self._torch
        with torch.inference_mode():
            outputs = self._module(torch.tensor(input_ids), torch.tensor(attention_mask))
        return tuple(output.numpy() for output in outputs)


def _build(model: ModelSpec, seq_len: int, cache: Path) -> Path:
    return model.directory


def _prepare(path: Path, model: ModelSpec, seq_len: int, threads: int) -> Runner:
    return _Eager(model, threads)


PEERS = (
    Peer(
        name="pytorch-f32",
        title="PyTorch eager",
        precision="f32",
        environment="main",
        packages=("torch", "transformers"),
        build=_build,
        prepare=_prepare,
    ),
)
