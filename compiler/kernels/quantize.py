"""Rows of f32 to 8 bits with a scale and an offset for each row.

Every scheme writes Q and S = (scale, offset) such that x is about scale * q + offset:

- ``asymmetric``: scale = (max - min) / 255, q = round((x - min) / scale). In the form ``u8`` q is
  0..255 and offset = min; in the form ``s8`` q is -128..127 and offset = min + 128 * scale.
- ``symmetric``: scale = max|x| / 127. In the form ``s8`` q is -127..127 and offset = 0; in the
  form ``u8`` q is 128 more and offset = -128 * scale, so that zero is exact in both.
- ``static``: scale and offset are given, the same for every row; q saturates.

Rounding is to nearest, ties to even: added to 1.5 * 2**23, a number's integer stands in the low
bits of the sum. A row whose range is below 1e-30 is constant: scale = 0, and the offset alone is
the value. An infinity counts as the largest finite number; NaN does not count, its q is the
highest, and a row of NaN alone gets NaN in S. Denormals count as zero (IREE runs kernels so).
No row affects another. `quantize_reference` is the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .emitter import Emitter
from .executable import Kernel, Operand, Shared
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

__all__ = [
    "LARGEST",
    "TINY",
    "Form",
    "Load",
    "Scheme",
    "quantize_kernel",
    "quantize_row",
    "smoothed",
]

Form = Literal["u8", "s8"]
Scheme = Literal["asymmetric", "symmetric", "static"]
Load = Callable[[Value, int], Value]
"""Gets a column and a number of lanes; returns that vector of the row."""

_MAGIC = 12582912.0
LARGEST = float.fromhex("0x1.fffffep127")
TINY = 1e-30


@dataclass(frozen=True)
class _Codes:
    """q is the low byte of ``factor`` * x + ``base``, where x is kept within the limits.

    Instead of x stands x / 2 + ``negative_half_low`` if there is one: x - low, halved because
    max - min may overflow. No ``lowest`` is needed where only -inf lies below it, and base has
    the low byte 0, as -inf has. (Limits on the code would cost x86 its one scarce port.)
    """

    scale: Value
    offset: Value
    negative_half_low: Value | None
    factor: Value
    base: float
    lowest: Value | None
    highest: Value


def quantize_row(
    e: Emitter,
    load: Load,
    depth: int,
    *,
    lanes: int,
    row: Value,
    codes: Buffer,
    scales: Buffer,
    form: Form = "u8",
    scheme: Scheme = "asymmetric",
    static: Buffer | None = None,
    reload: Load | None = None,
) -> None:
    """Write one row of ``codes`` (zeros behind ``depth``) and of ``scales``.

    ``load`` is called once for every vector, in order, to find the range, and ``reload`` (by
    default ``load``) again for the codes; so ``load`` may compute a row and leave it in memory
    for ``reload``. The static scheme only needs ``load``. Vectors may overlap: a column has to
    give the same value again.
    """
    if scheme == "static":
        if static is None:
            raise ValueError("the static scheme needs its scale and offset")
        found = _given(e, static, form)
    elif scheme == "symmetric":
        found = _symmetric(e, load, depth, lanes, form)
    else:
        found = _asymmetric(e, load, depth, lanes, form)
    e.store(found.scale, scales, [row, 0])
    e.store(found.offset, scales, [row, 1])

    width = width_for(depth, lanes)
    half = e.number(0.5, vector(width, "f32"))
    base = e.number(found.base, vector(width, "f32"))
    factor, highest = e.broadcast(found.factor, width), e.broadcast(found.highest, width)
    shift = found.negative_half_low and e.broadcast(found.negative_half_low, width)
    lowest = found.lowest and e.broadcast(found.lowest, width)
    fetch = reload if reload is not None and scheme != "static" else load

    def encode(column: Value, _: list[Value], __: int) -> list[Value]:
        x = fetch(column, width)
        x = x if shift is None else e.fma(x, half, shift)
        x = e.minimum(x, highest)
        x = x if lowest is None else e.maximum(x, lowest)
        code = e.fma(x, factor, base)
        bits = e.bitcast(code, vector(width, "i32"))
        e.store_vector(e.truncate(bits, "i8"), codes, [row, column])
        return []

    sweep(e, depth, lanes, encode)
    zero_fill(e, codes, row, depth)


def smoothed(e: Emitter, buffers: dict[str, Buffer], x: Value, column: Value, width: int) -> Value:
    """``x`` times the smoothing vector, where the kernel has one."""
    if "smoothing" not in buffers:
        return x
    return e.mul(x, e.load_vector(buffers["smoothing"], [column], width))


def _asymmetric(e: Emitter, load: Load, depth: int, lanes: int, form: Form) -> _Codes:
    width = width_for(depth, lanes)

    def widen(column: Value, extremes: list[Value], _: int) -> list[Value]:
        x = load(column, width)
        return [e.minimum(x, extremes[0]), e.maximum(x, extremes[1])]

    type_ = vector(width, "f32")
    start = [e.number(float("inf"), type_), e.number(float("-inf"), type_)]
    chains = sweep(e, depth, lanes, widen, start)
    low = across(e, e.minimum, [chain[0] for chain in chains])
    high = across(e, e.maximum, [chain[1] for chain in chains])

    def number(value: float) -> Value:
        return e.number(value, "f32")

    any_number = e.compare("ole", low, high)
    low = e.maximum(e.minimum(low, number(LARGEST)), number(-LARGEST))
    high = e.maximum(e.minimum(high, number(LARGEST)), number(-LARGEST))
    negative_half_low = e.mul(low, number(-0.5))
    half_range = e.fma(high, number(0.5), negative_half_low)
    varies = e.compare("oge", half_range, number(TINY))
    scale = e.select(varies, e.mul(half_range, number(2.0 / 255.0)), number(0.0))
    factor = e.select(varies, e.div(number(255.0), half_range), number(0.0))
    offset = low if form == "u8" else e.fma(scale, number(128.0), low)
    offset = e.select(any_number, offset, number(float("nan")))
    base = _base(form)
    lowest = None if form == "u8" else number(0.0)
    return _Codes(scale, offset, negative_half_low, factor, base, lowest, half_range)


def _symmetric(e: Emitter, load: Load, depth: int, lanes: int, form: Form) -> _Codes:
    width = width_for(depth, lanes)

    def widen(column: Value, largest: list[Value], _: int) -> list[Value]:
        return [e.maximum(e.absolute(load(column, width)), largest[0])]

    chains = sweep(e, depth, lanes, widen, [e.number(-1.0, vector(width, "f32"))])
    largest = across(e, e.maximum, [chain[0] for chain in chains])

    def number(value: float) -> Value:
        return e.number(value, "f32")

    any_number = e.compare("oge", largest, number(0.0))
    largest = e.minimum(largest, number(LARGEST))
    varies = e.compare("oge", largest, number(TINY))
    scale = e.select(varies, e.mul(largest, number(1.0 / 127.0)), number(0.0))
    scale = e.select(any_number, scale, number(float("nan")))
    factor = e.select(varies, e.div(number(127.0), largest), number(0.0))
    offset, base = number(0.0), _MAGIC
    if form == "u8":
        offset, base = e.mul(scale, number(-128.0)), _MAGIC + 128.0
    return _Codes(scale, offset, None, factor, base, e.negate(largest), largest)


def _given(e: Emitter, static: Buffer, form: Form) -> _Codes:
    scale, offset = e.load(static, [0]), e.load(static, [1])
    low = offset if form == "u8" else e.fma(scale, e.number(-128.0, "f32"), offset)
    negative_half_low = e.mul(low, e.number(-0.5, "f32"))
    factor = e.div(e.number(2.0, "f32"), scale)
    highest, lowest = e.mul(scale, e.number(127.5, "f32")), e.number(0.0, "f32")
    return _Codes(scale, offset, negative_half_low, factor, _base(form), lowest, highest)


def _base(form: Form) -> float:
    return _MAGIC if form == "u8" else _MAGIC - 128.0


def quantize_kernel(
    rows: int,
    depth: int,
    *,
    lanes: int,
    form: Form = "u8",
    scheme: Scheme = "asymmetric",
    smoothing: bool = False,
    padded_rows: int | None = None,
    row_stride: int | None = None,
    workgroups: int | None = None,
) -> Kernel:
    """X [rows, depth] f32 to Q [padded_rows, row_stride] i8 and S [padded_rows, 2] f32.

    With ``smoothing`` there is an input ``smoothing`` [depth]: X times it is what is quantised.
    The static scheme has one more, ``static`` [2]: the scale and the offset.
    Rows beyond ``rows`` stay undefined; the columns from ``depth`` on are zero bytes.
    """
    padded, stride = padded_rows or rows, row_stride or depth
    check_padding(rows, depth, padded, stride)
    groups = workgroups or groups_for(rows)

    def one(e: Emitter, buffers: dict[str, Buffer], shared: Shared, row: Value) -> None:
        del shared

        def load(column: Value, width: int) -> Value:
            x = e.load_vector(buffers["X"], [row, column], width)
            return smoothed(e, buffers, x, column, width)

        quantize_row(
            e,
            load,
            depth,
            lanes=lanes,
            row=row,
            codes=buffers["Q"],
            scales=buffers["S"],
            form=form,
            scheme=scheme,
            static=buffers.get("static"),
        )

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        with rows_of(e, group, rows, groups) as row:
            one(e, buffers, Shared(e), row)

    inputs = [Operand("X", (rows, depth), "f32")]
    inputs += [Operand("smoothing", (depth,), "f32")] if smoothing else []
    if scheme == "static":
        inputs.append(Operand("static", (2,), "f32"))
    outputs = (Operand("Q", (padded, stride), "i8"), Operand("S", (padded, 2), "f32"))
    how = f"{scheme}_smoothed" if smoothing else scheme
    name = f"quantize_{how}_{form}_{rows}x{depth}_to_{padded}x{stride}_by{lanes}_in{groups}"
    by_rows = each_row(rows, ["X", "Q", "S"], one)
    return Kernel(name, tuple(inputs), outputs, groups, body, by_rows)
