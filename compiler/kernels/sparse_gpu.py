"""A linear layer whose weight has zero blocks, on a GPU: SPIR-V by way of the stock compiler.

Before::

    y [rows, outputs] = x w^T (+ b)

After: a work-group for each panel of 16 outputs and each block of rows; a lane has one or more
rows, ``lanes`` apart, and their 16 sums in registers. All lanes walk through the panel's own list
of blocks (`sparse_format`): a block of weights is the same for all of them, so it is read once
for many rows, and each lane reads four neighbouring inputs of its rows.

Sums are in f32. A weight in f16, bf16 (its bits in 16-bit integers) or int8 (codes, with a scale
for each output) is widened where it is read; activations stay f32, multiplied by the smoothing
vector first where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .emitter import Emitter
from .executable import Kernel, Operand
from .sparse_format import SparseLayout
from .values import Buffer, Value, vector

__all__ = ["SparseLanes", "lane_bytes", "lane_rows", "sparse_gpu_kernel"]

_PANEL = 16
_FOUR = 4
_NARROW_SUBGROUP = 8
_ELEMENTS = {"f32": "f32", "f16": "f16", "bf16": "i16", "int8": "i8"}


@dataclass(frozen=True)
class SparseLanes:
    """Blocks of four inputs by 16 outputs of a weight in ``precision``."""

    precision: str
    name = "gpu_sparse"

    @property
    def element(self) -> str:
        """The element of weights in memory."""
        return _ELEMENTS[self.precision]

    @property
    def label(self) -> str:
        """What it is known by."""
        return f"{self.name}_{self.precision}"

    @property
    def weight_bytes(self) -> int:
        """Of one weight in memory."""
        return {"f32": 4, "i8": 1}.get(self.element, 2)

    def layout(self, outputs: int, depth: int) -> SparseLayout:
        """A block is [inputs][outputs]."""
        return SparseLayout(outputs, depth, _FOUR, _PANEL, _PANEL, 1)

    def serves(self, outputs: int, depth: int) -> bool:
        """Whether rows of inputs and outputs are whole vectors of four."""
        return outputs % _FOUR == 0 and depth % _FOUR == 0


def lane_rows(lanes: int) -> int:
    """The rows of a lane. Registers of a GPU are few; a narrow subgroup is a CPU's vector, with a
    cache behind."""
    return 8 if lanes <= _NARROW_SUBGROUP else 2


def lane_bytes(engine: SparseLanes, lanes: int) -> float:
    """What a lane loads for one multiplication: a value in f32 serves a panel, a weight all rows
    of the lane."""
    return 4 / _PANEL + engine.weight_bytes / lane_rows(lanes)


@dataclass(frozen=True)
class _GpuKernel(Kernel):
    """``body`` gets buffers whose element is a vector of four, but for lists of integers."""

    lanes: int = 1
    row_blocks: int = 1

    def declaration(self) -> str:
        """The executable, for the top of a module."""
        inputs = ["#hal.pipeline.binding<storage_buffer, ReadOnly>"] * len(self.inputs)
        outputs = ["#hal.pipeline.binding<storage_buffer>"] * len(self.outputs)
        layout = f"#hal.pipeline.layout<bindings = [{', '.join(inputs + outputs)}]>"
        e = Emitter()
        buffers: dict[str, Buffer] = {}
        zero = e.index(0)
        for position, operand in enumerate((*self.inputs, *self.outputs)):
            buffer = _buffer(operand)
            flags = " flags(ReadOnly)" if position < len(self.inputs) else ""
            e.raw(
                f"{buffer} = hal.interface.binding.subspan layout({layout}) binding({position}) "
                f"alignment(64) offset({zero}){flags} : {buffer.type}"
            )
            buffers[operand.name] = buffer
        self.body(e, buffers, e.op("hal.interface.workgroup.id[0] : index", "index"))
        how = (
            "#iree_codegen.translation_info<pipeline = #iree_gpu.spirv_pipeline<BaseLowering> "
            f"workgroup_size = [{self.lanes}, 1, 1]>"
        )
        return (
            f"hal.executable.source private @{self.name} {{\n"
            f"hal.executable.export public @{self.entry} ordinal(0) layout({layout}) "
            "count(%device: !hal.device) -> (index, index, index) {\n"
            f"%x = arith.constant {self.workgroups} : index\n"
            f"%y = arith.constant {self.row_blocks} : index\n"
            "%one = arith.constant 1 : index\n"
            "hal.return %x, %y, %one : index, index, index\n}\n"
            "builtin.module {\n"
            f"func.func @{self.entry}() attributes {{translation_info = {how}}} {{\n"
            f"{e.text()}\nreturn\n}}\n}}\n}}\n"
        )


def sparse_gpu_kernel(
    engine: SparseLanes,
    rows: int,
    layout: SparseLayout,
    stored: int,
    *,
    lanes: int,
    biased: bool,
    smoothed: bool,
) -> Kernel:
    """Inputs: ``activations`` [rows, depth] f32, the weight as `sparse_operands` of ``engine``'s
    layout, then ``scales`` [outputs] (int8), ``smoothing`` [depth] and ``bias`` [outputs]."""
    outputs, depth = layout.outputs, layout.depth
    if not engine.serves(outputs, depth):
        raise ValueError(f"no vectors of four in {depth} x {outputs}")
    each = min(lane_rows(lanes), math.ceil(rows / lanes))
    integer = engine.precision == "int8"
    inputs = [
        Operand("activations", (rows, depth), "f32"),
        Operand("weights", (1, stored * layout.block_size), engine.element),
        Operand("places", (stored,), "i32"),
        Operand("starts", (layout.panels + 1,), "i32"),
    ]
    inputs += [Operand("scales", (outputs,), "f32")] if integer else []
    inputs += [Operand("smoothing", (depth,), "f32")] if smoothed else []
    inputs += [Operand("bias", (outputs,), "f32")] if biased else []

    def body(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> None:
        _Lane(e, engine, layout, buffers, rows, lanes, each).run(panel)

    extra = "".join(["_biased"] * biased + ["_smoothed"] * smoothed)
    return _GpuKernel(
        name=f"{engine.label}_{rows}x{depth}x{outputs}_of{stored}_by{lanes}x{each}{extra}",
        inputs=tuple(inputs),
        outputs=(Operand("result", (rows, outputs), "f32"),),
        workgroups=layout.panels,
        body=body,
        lanes=lanes,
        row_blocks=math.ceil(rows / (lanes * each)),
    )


def _buffer(operand: Operand) -> Buffer:
    if operand.element == "i32":
        return Buffer(f"%{operand.name}", operand.shape, "i32")
    (*lead, width) = operand.shape
    return Buffer(f"%{operand.name}", (*lead, width // _FOUR), vector(_FOUR, operand.element))


class _Lane:
    """What one lane of a work-group does."""

    def __init__(
        self,
        e: Emitter,
        engine: SparseLanes,
        layout: SparseLayout,
        buffers: dict[str, Buffer],
        rows: int,
        lanes: int,
        lane_rows: int,
    ) -> None:
        self._e, self._engine, self._layout, self._buffers = e, engine, layout, buffers
        self._rows, self._lanes, self._lane_rows = rows, lanes, lane_rows
        self._vectors = _PANEL // _FOUR

    def run(self, panel: Value) -> None:
        """All rows of the lane by one panel."""
        e, buffers = self._e, self._buffers
        block = e.op("hal.interface.workgroup.id[1] : index", "index")
        lane = e.op("gpu.thread_id x", "index")
        first = e.add(e.mul(block, e.index(self._lanes * self._lane_rows)), lane)
        rows = [e.add(first, e.index(i * self._lanes)) for i in range(self._lane_rows)]
        # A row that is not there computes what the last one does, and is not stored.
        sources = [e.least(row, self._rows - 1) for row in rows]
        start, end = (
            e.cast_index(e.load(buffers["starts"], [at]), "index")
            for at in (panel, e.add(panel, e.index(1)))
        )
        zeros = [e.number(0.0, vector(_FOUR, "f32"))] * (self._lane_rows * self._vectors)
        with e.loop(start, end, carried=zeros) as loop:
            loop.carry(self._products(loop.index, sources, loop.values))
        self._finish(panel, rows, loop.results)

    def _products(self, block: Value, sources: list[Value], sums: list[Value]) -> list[Value]:
        e, buffers = self._e, self._buffers
        place = e.cast_index(e.load(buffers["places"], [block]), "index")
        values = [e.load(buffers["activations"], [row, place]) for row in sources]
        if "smoothing" in buffers:
            by = e.load(buffers["smoothing"], [place])
            values = [e.mul(value, by) for value in values]
        found = list(sums)
        weights = e.mul(block, e.index(_FOUR * self._vectors))
        for k in range(_FOUR):
            parts = [
                self._wide(
                    e.load(buffers["weights"], [0, e.add(weights, e.index(k * self._vectors + j))])
                )
                for j in range(self._vectors)
            ]
            for i, value in enumerate(values):
                one = e.op(f"vector.extract {value}[{k}] : f32 from {value.type}", "f32")
                spread = e.broadcast(one, _FOUR)
                for j, part in enumerate(parts):
                    at = i * self._vectors + j
                    # Not fused: a driver without the instruction calls a function for it.
                    found[at] = e.add(found[at], e.mul(spread, part))
        return found

    def _wide(self, weights: Value) -> Value:
        """Four weights as f32."""
        e = self._e
        match self._engine.precision:
            case "f16":
                return e.extend(weights, "f32")
            case "bf16":
                bits = e.shift_left(e.extend(weights, "i32", signed=False), 16)
                return e.op(
                    f"arith.bitcast {bits} : {bits.type} to {vector(_FOUR, 'f32')}",
                    vector(_FOUR, "f32"),
                )
            case "int8":
                return e.to_float(e.extend(weights, "i32"))
        return weights

    def _finish(self, panel: Value, rows: list[Value], sums: list[Value]) -> None:
        e, buffers = self._e, self._buffers
        width = self._layout.outputs // _FOUR
        first = e.mul(panel, e.index(self._vectors))
        full = self._layout.outputs % _PANEL == 0
        for j in range(self._vectors):
            column = e.add(first, e.index(j))
            source = column if full else e.least(column, width - 1)
            scale = e.load(buffers["scales"], [source]) if "scales" in buffers else None
            bias = e.load(buffers["bias"], [source]) if "bias" in buffers else None
            for i, row in enumerate(rows):
                value = sums[i * self._vectors + j]
                value = e.mul(value, scale) if scale is not None else value
                value = e.add(value, bias) if bias is not None else value
                with self._if_below([(row, self._rows)] + ([] if full else [(column, width)])):
                    e.store(value, buffers["result"], [row, column])

    @contextmanager
    def _if_below(self, limits: list[tuple[Value, int]]) -> Iterator[None]:
        e = self._e
        for value, limit in limits:
            e.raw(f"scf.if {e.compare('ult', value, e.index(limit))} {{")
        yield
        for _ in limits:
            e.raw("}")
