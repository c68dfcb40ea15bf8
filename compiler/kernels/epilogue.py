"""What happens to a product's sums before they reach memory.

y = activation(sums, dequantised where they are integers, + bias) + residual, as f32 or bf16::

    int8:  y = sums * (scale[row] * weight_scale[n]) + (offset[row] * column_sum[n] + bias[n])

where ``column_sum[n]`` is the sum of weight_scale[n] * q over the depth: activations are
x = scale * q + offset, so no integer zero point is needed (per-token asymmetric quantisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import vector_math
from .convert import round_bf16
from .emitter import Emitter
from .executable import Operand
from .values import Buffer, Value

__all__ = ["ACTIVATIONS", "Epilogue", "Finish"]

ACTIVATIONS = ("none", "gelu", "gelu_tanh", "relu", "silu", "tanh")


@dataclass(frozen=True)
class Epilogue:
    """``accurate`` asks for activations right to f32; else to bf16 and int8.

    ``output`` is f32 or bf16; ``native_bf16`` as for `round_bf16`.
    """

    activation: str = "none"
    bias: bool = True
    residual: bool = False
    output: str = "f32"
    accurate: bool = True
    native_bf16: bool = False

    @property
    def label(self) -> str:
        """All of it, as part of a kernel's name."""
        parts = [self.activation, "bias" if self.bias else "nobias"]
        parts += ["residual"] if self.residual else []
        parts += ["accurate"] if self.accurate else []
        parts += ["native"] if self.native_bf16 and self.output == "bf16" else []
        return "_".join([*parts, self.output])

    def operands(
        self, rows: int, padded_rows: int, outputs: int, *, integer: bool
    ) -> list[Operand]:
        """What the epilogue reads beside the sums, in order."""
        found = []
        if integer:
            found.append(Operand("row_scales", (padded_rows, 2), "f32"))
            found.append(Operand("weight_scales", (outputs,), "f32"))
            found.append(Operand("column_sums", (outputs,), "f32"))
        if self.bias:
            found.append(Operand("bias", (outputs,), "f32"))
        if self.residual:
            found.append(Operand("residual", (rows, outputs), "f32"))
        return found


class Finish:
    """The epilogue of one panel: vectors by output are loaded once, then rows come by."""

    def __init__(
        self,
        e: Emitter,
        epilogue: Epilogue,
        buffers: dict[str, Buffer],
        *,
        column: Value,
        columns: int,
        lanes: int,
    ) -> None:
        self._e = e
        self._epilogue = epilogue
        self._buffers = buffers
        starts = range(0, columns, lanes)
        self._at = [e.add(column, e.index(start)) for start in starts]
        self._widths = [min(lanes, columns - start) for start in starts]
        self._lanes = lanes
        self._integer = "row_scales" in buffers
        self._scales = self._columns("weight_scales") if self._integer else []
        self._sums = self._columns("column_sums") if self._integer else []
        self._bias = self._columns("bias") if epilogue.bias else []

    def _columns(self, name: str) -> list[Value]:
        return [
            self._e.load_vector(self._buffers[name], [at], width)
            for at, width in zip(self._at, self._widths, strict=True)
        ]

    def row(self, row: Value, sums: Sequence[Value]) -> None:
        """Finish and store one row of the panel; sums beyond the last output are dropped."""
        e = self._e
        scale = offset = None
        if self._integer:
            scale = e.load(self._buffers["row_scales"], [row, 0])
            offset = e.load(self._buffers["row_scales"], [row, 1])
        for j, width in enumerate(self._widths):
            total = sums[j]
            if width != self._lanes:
                total = e.shuffle(total, total, range(width))
            if scale is not None and offset is not None:
                total = self._dequantised(total, scale, offset, j, width)
            elif self._bias:
                total = e.add(total, self._bias[j])
            self._store(self._activated(total), row, j, width)

    def _dequantised(self, total: Value, scale: Value, offset: Value, j: int, width: int) -> Value:
        e = self._e
        wide_offset = e.broadcast(offset, width)
        if self._bias:
            constant = e.fma(wide_offset, self._sums[j], self._bias[j])
        else:
            constant = e.mul(wide_offset, self._sums[j])
        factor = e.mul(e.broadcast(scale, width), self._scales[j])
        return e.fma(e.to_float(total), factor, constant)

    def _activated(self, value: Value) -> Value:
        e, name = self._e, self._epilogue.activation
        accuracy: vector_math.Accuracy = "accurate" if self._epilogue.accurate else "fast"
        match name:
            case "none":
                return value
            case "gelu":
                return vector_math.gelu(e, value, accuracy)
            case "gelu_tanh":
                return vector_math.gelu_tanh(e, value, accuracy)
            case "silu":
                return vector_math.silu(e, value)
            case "relu":
                return vector_math.relu(e, value)
            case "tanh":
                return vector_math.tanh(e, value)
        raise ValueError(f"unknown activation {name!r}")

    def _store(self, value: Value, row: Value, j: int, width: int) -> None:
        e = self._e
        at = [row, self._at[j]]
        if self._epilogue.residual:
            value = e.add(value, e.load_vector(self._buffers["residual"], at, width))
        if self._epilogue.output == "bf16":
            value = round_bf16(e, value, native=self._epilogue.native_bf16)
        e.store_vector(value, self._buffers["result"], at)
