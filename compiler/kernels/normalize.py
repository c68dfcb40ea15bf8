"""LayerNorm and RMSNorm, with the residual before and the quantisation after, in one pass of rows.

With v = x, or x + residual::

    layer: y = (v - mean) / sqrt(variance + eps) * gamma + beta
    rms:   y = v / sqrt(mean of v**2 + eps) * gamma + beta

The variance is the mean of (v - mean)**2, summed after the mean is known, so that a large mean
loses nothing. Sums are of f32. A NaN or an infinity makes its row NaN, and no other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .convert import round_bf16
from .emitter import Emitter
from .executable import Kernel, Operand, Shared
from .quantize import Form, Scheme, quantize_row, smoothed
from .rows import (
    across,
    check_padding,
    each_row,
    groups_for,
    rows_of,
    sweep,
    width_for,
    zero_fill,
)
from .values import Buffer, Value, vector

__all__ = ["Flavour", "Output", "layer_norm_kernel", "layer_norm_reference"]

Flavour = Literal["layer", "rms"]
Output = Literal["f32", "q", "bf16"]

_Array = np.ndarray[Any, Any]

# 16 KiB of a stack that IREE limits to 32; deeper rows are computed twice instead.
_MOST_KEPT = 4096


@dataclass(frozen=True)
class _Norm:
    """What the text of a kernel depends on, beside the operands."""

    depth: int
    lanes: int
    eps: float
    flavour: Flavour
    form: Form
    scheme: Scheme
    native_bf16: bool

    @property
    def width(self) -> int:
        return width_for(self.depth, self.lanes)


def layer_norm_kernel(
    rows: int,
    depth: int,
    *,
    lanes: int,
    eps: float,
    flavour: Flavour = "layer",
    residual: bool = False,
    beta: bool = True,
    outputs: Sequence[Output] = ("f32",),
    form: Form = "u8",
    scheme: Scheme = "asymmetric",
    smoothing: bool = False,
    native_bf16: bool = False,
    padded_rows: int | None = None,
    row_stride: int | None = None,
    workgroups: int | None = None,
) -> Kernel:
    """Inputs X, [residual] [rows, depth], gamma, [beta] [depth] and, if static, static [2].

    With ``smoothing`` there is, after beta, a vector [depth]: q is of y times it, f32 of y.
    Outputs, in the order of ``outputs``: Y [rows, depth] for f32; Q [padded_rows, row_stride] and
    S [padded_rows, 2] for q, as `quantize.quantize_kernel` with ``form`` and ``scheme``; B
    [padded_rows, row_stride] for bf16, as `convert.convert_kernel`. Padding as there.
    """
    padded, stride = padded_rows or rows, row_stride or depth
    check_padding(rows, depth, padded, stride)
    if not outputs or len(set(outputs)) != len(outputs):
        raise ValueError(f"each output once, and at least one, not {list(outputs)}")
    groups = workgroups or groups_for(rows)
    norm = _Norm(depth, lanes, eps, flavour, form, scheme, native_bf16)

    inputs = [Operand("X", (rows, depth), "f32")]
    inputs += [Operand("residual", (rows, depth), "f32")] if residual else []
    inputs += [Operand("gamma", (depth,), "f32")]
    inputs += [Operand("beta", (depth,), "f32")] if beta else []
    inputs += [Operand("smoothing", (depth,), "f32")] if smoothing else []
    inputs += [Operand("static", (2,), "f32")] if "q" in outputs and scheme == "static" else []
    operands: dict[Output, list[Operand]] = {
        "f32": [Operand("Y", (rows, depth), "f32")],
        "q": [Operand("Q", (padded, stride), "i8"), Operand("S", (padded, 2), "f32")],
        "bf16": [Operand("B", (padded, stride), "i16")],
    }

    reads_again = "q" in outputs and scheme != "static" and "f32" not in outputs

    def keep(shared: Shared) -> Buffer | None:
        return shared.scratch((1, depth), "f32") if reads_again and depth <= _MOST_KEPT else None

    def one(e: Emitter, buffers: dict[str, Buffer], shared: Shared, row: Value) -> None:
        _normalize_row(e, norm, buffers, row, keep(shared))

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        shared = Shared(e)
        keep(shared)  # once, before the loop
        with rows_of(e, group, rows, groups) as row:
            one(e, buffers, shared, row)

    codes = f"{scheme}_smoothed_{form}" if smoothing else f"{scheme}_{form}"
    labels = {"f32": "f32", "q": codes, "bf16": "native" if native_bf16 else "bf16"}
    name = "_".join(
        [
            f"{flavour}_norm_{struct.pack('>f', eps).hex()}",
            *(["residual"] if residual else []),
            *(["beta"] if beta else []),
            *(labels[output] for output in outputs),
            f"{rows}x{depth}_to_{padded}x{stride}_by{lanes}_in{groups}",
        ]
    )
    written = tuple(operand for output in outputs for operand in operands[output])
    by_rows = each_row(rows, ["X", "residual", "Y", "Q", "S", "B"], one, keep)
    return Kernel(name, tuple(inputs), written, groups, body, by_rows)


def _normalize_row(
    e: Emitter, norm: _Norm, buffers: dict[str, Buffer], row: Value, keep: Buffer | None
) -> None:
    """All outputs of one row; ``keep`` may hold y between two passes if no output does."""
    depth, width = norm.depth, norm.width

    def fetch(column: Value, width: int) -> Value:
        x = e.load_vector(buffers["X"], [row, column], width)
        if "residual" in buffers:
            x = e.add(x, e.load_vector(buffers["residual"], [row, column], width))
        return x

    scale, shift = _moments(e, norm, fetch)
    wide_scale = e.broadcast(scale, width)
    wide_shift = shift and e.broadcast(shift, width)

    def normalized(column: Value, width: int) -> Value:
        x = fetch(column, width)
        x = x if wide_shift is None else e.sub(x, wide_shift)
        y = e.mul(x, wide_scale)
        gamma = e.load_vector(buffers["gamma"], [column], width)
        if "beta" in buffers:
            y = e.fma(y, gamma, e.load_vector(buffers["beta"], [column], width))
        else:
            y = e.mul(y, gamma)
        if "Y" in buffers:
            e.store_vector(y, buffers["Y"], [row, column])
        if keep is not None:
            e.store_vector(y, keep, [0, column])
        if "B" in buffers:
            narrow = round_bf16(e, y, native=norm.native_bf16)
            e.store_vector(narrow, buffers["B"], [row, column])
        return y

    def again(column: Value, width: int) -> Value:
        if keep is not None:
            y = e.load_vector(keep, [0, column], width)
        else:
            y = e.load_vector(buffers["Y"], [row, column], width)
        return smoothed(e, buffers, y, column, width)

    if "Q" in buffers:
        quantize_row(
            e,
            lambda column, width: smoothed(e, buffers, normalized(column, width), column, width),
            depth,
            lanes=norm.lanes,
            row=row,
            codes=buffers["Q"],
            scales=buffers["S"],
            form=norm.form,
            scheme=norm.scheme,
            static=buffers.get("static"),
            reload=again if keep is not None or "Y" in buffers else None,
        )
    else:

        def step(column: Value, _: list[Value], __: int) -> list[Value]:
            normalized(column, width)
            return []

        sweep(e, depth, norm.lanes, step)
    if "B" in buffers:
        zero_fill(e, buffers["B"], row, depth)


def _moments(
    e: Emitter, norm: _Norm, fetch: Callable[[Value, int], Value]
) -> tuple[Value, Value | None]:
    """1 / sqrt(the variance + eps), and the mean where the flavour has one."""
    width, share = norm.width, e.number(1.0 / norm.depth, "f32")
    zero = e.number(0.0, vector(width, "f32"))

    def new_lanes(x: Value, seen: int) -> Value:
        """Zeros for the lanes that an earlier vector has counted."""
        if not seen:
            return x
        lane = e.dense(range(width), "i32")
        return e.select(e.compare("sge", lane, e.number(seen, lane.type)), x, zero)

    def total(term: Callable[[Value, int, Value], Value]) -> Value:
        def step(column: Value, sums: list[Value], seen: int) -> list[Value]:
            return [term(fetch(column, width), seen, sums[0])]

        chains = sweep(e, norm.depth, norm.lanes, step, [zero])
        return e.mul(across(e, e.add, [chain[0] for chain in chains]), share)

    mean = wide_mean = None
    if norm.flavour == "layer":
        mean = total(lambda x, seen, sum_: e.add(sum_, new_lanes(x, seen)))
        wide_mean = e.broadcast(mean, width)

    def square(x: Value, seen: int, sum_: Value) -> Value:
        x = new_lanes(x if wide_mean is None else e.sub(x, wide_mean), seen)
        return e.fma(x, x, sum_)

    variance = e.add(total(square), e.number(norm.eps, "f32"))
    return e.div(e.number(1.0, "f32"), e.sqrt(variance)), mean


def layer_norm_reference(
    x: _Array,
    gamma: _Array,
    beta: _Array | None = None,
    *,
    eps: float,
    flavour: Flavour = "layer",
    residual: _Array | None = None,
) -> _Array:
    """y as float64 has it, from the f32 sum of x and residual."""
    rows = x.astype(np.float32)
    if residual is not None:
        rows = rows + residual.astype(np.float32)
    wide = rows.astype(np.float64)
    if flavour == "layer":
        wide = wide - wide.mean(1, keepdims=True)
    y: _Array = wide / np.sqrt((wide**2).mean(1, keepdims=True) + eps) * gamma
    return y if beta is None else y + beta
