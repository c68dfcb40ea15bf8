"""A product whose weights are stored in 8 or 4 bits and multiplied as f32 or bf16.

Before (per layer)::

    %x = activations [rows, depth] as an engine of f32 or bf16 takes them
    %w = codes and scales as `weight_format` stores them

After, for many rows: one dispatch in which each work-group dequantises a panel of weights into
memory of its own, which all rows then meet (`panel_kernel`). For a few rows, where reading the
weights is what takes the time: one dispatch that multiplies codes as they come from memory
(`weight_rows`). Sums are f32; the epilogue is that of any product.

Law: y[m, n] = sum over k of x[m, k] * (scale[n, k's group] * code[n, k]).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .convert import round_bf16
from .emitter import Emitter
from .engines.base import Block, Engine
from .epilogue import Epilogue
from .executable import Kernel, Operand
from .product import Blocks, ProductShape, Rows, panel_kernel
from .values import Buffer, Value
from .weight_codes import codes_of, interleaved, load_scales
from .weight_format import GROUP, WeightFormat
from .weight_rows import StoredBlock, WeightRows

__all__ = ["stored_operands", "weight_only_kernel"]


def stored_operands(form: WeightFormat, outputs: int, depth: int) -> tuple[Operand, Operand]:
    """The weight as a kernel takes it: ``words`` and ``scales``."""
    element = "i16" if form.bits == 4 else "f32"
    return (
        Operand("words", form.words_shape(outputs, depth), "i32"),
        Operand("scales", form.scales_shape(outputs, depth), element),
    )


def weight_only_kernel(
    engine: Engine,
    form: WeightFormat,
    shape: ProductShape,
    epilogue: Epilogue,
    *,
    native_bf16: bool = False,
    result_shape: tuple[int, int] | None = None,
) -> Kernel:
    """The kernel; its inputs are ``activations``, `stored_operands` and the epilogue's.

    ``engine`` is `WeightRows` for few rows, or one of f32 or bf16 with as many lanes as ``form``.
    ``activations`` and ``result`` are as `product_kernel`'s. The latter has a second output,
    ``panels``: room for one dequantised panel of each work-group, which nobody reads.
    ``native_bf16`` as for `round_bf16`.
    """
    if engine.precision == "int8" or engine.lanes != form.lanes:
        raise ValueError(f"{engine.label} cannot multiply weights of {form}")
    rows, depth, outputs = shape.rows, shape.depth, shape.outputs
    inputs = (
        Operand(
            "activations", (engine.padded_rows(rows), engine.row_stride(depth)), engine.element
        ),
        *stored_operands(form, outputs, depth),
        *epilogue.operands(rows, engine.padded_rows(rows), outputs, integer=False),
    )
    name = f"weights{form.bits}_{engine.label}_{rows}x{depth}x{outputs}_{epilogue.label}"
    direct = isinstance(engine, WeightRows)
    panels = _Panels(engine, form, shape, native_bf16)
    blocks = _as_stored(form, shape) if direct else panels.blocks
    kernel = panel_kernel(name, engine, shape, epilogue, inputs, blocks, result_shape)
    if direct:
        return kernel
    room = Operand("panels", (kernel.workgroups, panels.size), engine.element)
    return replace(kernel, outputs=(*kernel.outputs, room))


def _as_stored(form: WeightFormat, shape: ProductShape) -> Blocks:
    def blocks(e: Emitter, buffers: dict[str, Buffer], panel: Value) -> Rows:
        del e
        return lambda row, rows: StoredBlock(
            buffers["activations"],
            buffers["words"],
            row,
            rows,
            panel,
            shape.depth,
            scales=buffers["scales"],
            form=form,
        )

    return blocks


@dataclass(frozen=True)
class _Panels:
    """Dequantising panels in the order in which ``engine`` reads them (`Engine.pack`)."""

    engine: Engine
    form: WeightFormat
    shape: ProductShape
    native_bf16: bool

    @property
    def size(self) -> int:
        """Elements of a panel, its depth filled up to whole groups."""
        return self.form.groups(self.shape.depth) * GROUP * self.engine.panel

    def blocks(self, e: Emitter, buffers: dict[str, Buffer], panel: Value) -> Rows:
        """Fill the work-group's panel; what rows meet is there."""
        room = buffers["panels"]
        mine = e.op("hal.interface.workgroup.id[0] : index", "index")
        last = self.form.tiles(self.shape.outputs) - 1
        with e.loop(0, self.engine.tiles) as tiles:
            tile = e.add(e.mul(panel, e.index(self.engine.tiles)), tiles.index)
            tile = e.least(tile, last)  # beyond the last output nothing is read
            place = e.mul(tiles.index, e.index(self._offset(0, 1)))
            with e.loop(0, self.form.groups(self.shape.depth)) as groups:
                scales = load_scales(e, self.form, buffers["scales"], tile, groups.index)
                start = e.add(e.mul(groups.index, e.index(GROUP * self.engine.panel)), place)
                self._group(e, buffers["words"], tile, groups.index, scales, room, mine, start)
        count = self.engine.padded_depth(self.shape.depth) // self.engine.group
        return lambda row, rows: Block(buffers["activations"], room, row, rows, mine, count)

    def _group(
        self,
        e: Emitter,
        words: Buffer,
        tile: Value,
        group: Value,
        scales: Value,
        room: Buffer,
        mine: Value,
        start: Value,
    ) -> None:
        lanes, per_word = self.form.lanes, self.form.per_word
        first = e.mul(group, e.index(GROUP // per_word * lanes))
        for word in range(GROUP // per_word):
            at = e.add(first, e.index(word * lanes))
            found = codes_of(e, self.form, e.load_vector(words, [tile, at], lanes), per_word)
            stored = [self._stored(e, e.mul(code, scales)) for code in found]
            for n in range(0, per_word, self.engine.group):
                together = interleaved(e, stored[n : n + self.engine.group])
                to = e.add(start, e.index(self._offset(word * per_word + n, 0)))
                e.store_vector(together, room, [mine, to])

    def _stored(self, e: Emitter, value: Value) -> Value:
        if self.engine.precision == "f32":
            return value
        return round_bf16(e, value, native=self.native_bf16)

    def _offset(self, depth: int, tile: int) -> int:
        """Where in a panel the codes of a depth (a multiple of the engine's group) begin."""
        engine = self.engine
        step, within = divmod(depth // engine.group, engine.groups_per_step)
        vector = engine.lanes * engine.group
        each = engine.groups_per_step * vector
        return (step * engine.tiles + tile) * each + within * vector
