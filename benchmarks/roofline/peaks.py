"""What a core can do at most: products in registers alone, and reading memory in a line.

Each is a kernel of its own, run by the same means as those it is held against.
"""

from __future__ import annotations

from canao.compiler.kernels.emitter import Emitter
from canao.compiler.kernels.engines.amx import AmxBf16, AmxInt8
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.broadcasting import Broadcasting
from canao.compiler.kernels.executable import Kernel, Operand
from canao.compiler.kernels.values import Buffer, Value, vector

__all__ = ["compute_peak", "nothing", "reading"]

_TILE_ROWS, _TILE_BYTES = 16, 64


def nothing() -> Kernel:
    """A kernel that does nothing: what a call costs by itself."""
    operand = Operand("source", (16,), "f32")

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        e.store(e.load(buffers["source"], [group]), buffers["result"], [group])

    return Kernel("nothing", (operand,), (Operand("result", (16,), "f32"),), 1, body)


def reading(size: int, lanes: int, times: int) -> Kernel:
    """Reads ``size`` bytes in a line, ``times`` over, into eight vectors of sums."""
    count = size // 4
    step = 8 * lanes

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        del group
        start = [e.number(0, vector(lanes, "f32"))] * 8
        with e.loop(0, times, carried=start) as outer:
            with e.loop(0, count, step, carried=outer.values) as loop:
                places = [e.add(loop.index, e.index(n * lanes)) for n in range(8)]
                read = [e.load_vector(buffers["source"], [place], lanes) for place in places]
                loop.carry([e.add(a, b) for a, b in zip(loop.values, read, strict=True)])
            outer.carry(loop.results)
        _store(e, outer.results, buffers["result"])

    result = Operand("result", (8, lanes), "f32")
    return Kernel(f"reading_{size}", (Operand("source", (count,), "f32"),), (result,), 1, body)


def compute_peak(engine: Engine, rounds: int) -> tuple[Kernel, int] | None:
    """A kernel that multiplies what is in registers, and its multiply-adds; None if unknown."""
    if isinstance(engine, AmxInt8 | AmxBf16):
        return _tiles(engine, rounds)
    if isinstance(engine, Broadcasting):
        return _registers(engine, rounds)
    return None


def _registers(engine: Broadcasting, rounds: int) -> tuple[Kernel, int]:
    element = "i32" if engine.precision == "int8" else "f32"
    width = engine.group * engine.lanes
    ones = Operand("ones", (1, engine.group), engine.element)
    weights = Operand("weights", (engine.tiles, width), engine.element)
    count = engine.block_rows * engine.tiles
    # What does not change in a loop is computed before it; here that would be the product.
    moving = engine.name == "avx2_int8"

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        del group
        loaded = [e.load_vector(buffers["weights"], [j, 0], width) for j in range(engine.tiles)]
        if engine.precision == "f32":
            one = e.broadcast(e.load(buffers["ones"], [0, 0]), engine.lanes)
        else:
            word = e.bitcast(e.load_vector(buffers["ones"], [0, 0], engine.group), "vector<1xi32>")
            wide = vector(engine.lanes, "i32")
            one = e.op(f"vector.broadcast {word} : {word.type} to {wide}", wide)
        start = [e.number(0, vector(engine.lanes, element))] * count
        with e.loop(0, rounds, carried=[*loaded, *start]) as loop:
            panel, sums = loop.values[: engine.tiles], loop.values[engine.tiles :]
            following = [
                engine._multiplied(e, total, one, panel[i % engine.tiles])
                for i, total in enumerate(sums)
            ]
            if moving:
                panel = [e.add(values, e.number(1, values.type)) for values in panel]
            loop.carry([*panel, *following])
        _store(e, loop.results[engine.tiles :], buffers["result"])

    result = Operand("result", (count, engine.lanes), element)
    kernel = Kernel(f"peak_{engine.label}", (ones, weights), (result,), 1, body)
    return kernel, rounds * count * engine.lanes * engine.group


def _tiles(engine: AmxInt8 | AmxBf16, rounds: int) -> tuple[Kernel, int]:
    """Four tiles of sums, two of activations, two of weights, as in a product."""
    element = "i32" if engine.precision == "int8" else "f32"

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        del group
        engine.prepare(e)
        tile = [e.literal(i, "i8") for i in range(8)]
        stride = e.literal(_TILE_BYTES, "i64")
        for i in range(8):
            if i < 4:
                e.effect("llvm.x86.tilezero", [tile[i]])
            else:
                e.effect("llvm.x86.tileloadd64", [tile[i], e.pointer(buffers["source"]), stride])
        with e.loop(0, rounds):
            for i in range(2):
                for j in range(2):
                    operands = [tile[2 * i + j], tile[4 + i], tile[6 + j]]
                    e.effect(engine.multiply_op, operands)
        for i in range(4):
            offset = e.index(i * _TILE_ROWS * _TILE_BYTES)
            place = e.pointer(buffers["result"], offset)
            e.effect("llvm.x86.tilestored64", [tile[i], place, stride])
        engine.finish(e)

    width = _TILE_BYTES if engine.precision == "int8" else _TILE_BYTES // 2
    source = Operand("source", (_TILE_ROWS, width), engine.element)
    result = Operand("result", (4 * _TILE_ROWS, 16), element)
    kernel = Kernel(f"peak_{engine.label}", (source,), (result,), 1, body)
    return kernel, rounds * 4 * _TILE_ROWS * 16 * 16 * engine.group


def _store(e: Emitter, values: list[Value], buffer: Buffer) -> None:
    for row, value in enumerate(values):
        e.store_vector(value, buffer, [row, 0])
