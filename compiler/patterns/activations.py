"""Activation functions of the torch dialect, by the names that kernels know them by."""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

__all__ = ["activation_of"]

_NAMES = {
    "torch.aten.gelu": "gelu",
    "torch.aten.relu": "relu",
    "torch.aten.silu": "silu",
    "torch.aten.tanh": "tanh",
}


def activation_of(op: Any) -> str | None:
    """One of `epilogue.ACTIVATIONS` where ``op`` computes it, else None."""
    if op.name != "torch.aten.gelu":
        return _NAMES.get(op.name)
    form = ir.StringAttr(op.operands[1].owner.operation.attributes["value"]).value
    return {"none": "gelu", "tanh": "gelu_tanh"}.get(form)
