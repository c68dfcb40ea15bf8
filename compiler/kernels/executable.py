"""A kernel as the compiler takes it: one `hal.executable.source` and the call of it.

Before: a body written with an `Emitter`. After: a module-level executable whose export is
called by ``flow.dispatch @name::@entry(...)``, with one binding for each input and output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .emitter import Emitter
from .values import Buffer, Value

__all__ = ["Body", "ByRows", "Kernel", "Operand", "Shared"]


@dataclass(frozen=True)
class Operand:
    """A tensor that a kernel reads or writes; ``element`` as MLIR spells it."""

    name: str
    shape: tuple[int, ...]
    element: str

    @property
    def tensor(self) -> str:
        """The tensor type that the call passes."""
        return f"tensor<{'x'.join(map(str, (*self.shape, self.element)))}>"


# Gets the emitter, the buffers by operand name, and the index of the work-group.
Body = Callable[[Emitter, dict[str, Buffer], Value], None]


class Shared:
    """What the pieces of one dispatch use one after the other: memory, and state of the core."""

    def __init__(self, e: Emitter) -> None:
        self._e = e
        self._scratch: dict[tuple[tuple[int, ...], str], Buffer] = {}
        self._prepared: dict[str, Any] = {}
        self._endings: list[Callable[[Emitter], None]] = []

    def scratch(self, shape: tuple[int, ...], element: str) -> Buffer:
        """A buffer on the stack; the same one for all who ask alike."""
        if (shape, element) not in self._scratch:
            self._scratch[shape, element] = self._e.scratch(shape, element)
        return self._scratch[shape, element]

    def prepared(
        self, name: str, prepare: Callable[[Emitter], Any], finish: Callable[[Emitter], None]
    ) -> Any:
        """What ``prepare`` returns, called once for ``name``; `finish` undoes it."""
        if name not in self._prepared:
            self._prepared[name] = prepare(self._e)
            self._endings.append(finish)
        return self._prepared[name]

    def finish(self) -> None:
        """The end of the work-group."""
        for ending in self._endings:
            ending(self._e)


@dataclass(frozen=True)
class ByRows:
    """A kernel as something done to a block of rows, all columns of it.

    ``body`` gets the emitter, the buffers, the first row and how many; ``multiple`` divides the
    former. ``operands`` are those of which it touches these rows alone (padded to ``multiple``).
    What it needs beyond the rows is asked for by ``prepare``, before any loop.
    """

    rows: int
    multiple: int
    operands: frozenset[str]
    prepare: Callable[[Shared], object] = field(repr=False, compare=False)
    body: Callable[[Emitter, dict[str, Buffer], Shared, Value, int], None] = field(
        repr=False, compare=False
    )
    weight_bytes: int = 0
    """How much of other operands each block reads."""

    at_once: int = 1
    """So many rows (a multiple of ``multiple``) should meet what a block reads again."""


@dataclass(frozen=True)
class Kernel:
    """A function of static shapes. ``name`` tells all that its text depends on.

    ``workgroups`` run in any order and at once; the body gets the number of each.
    """

    name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    workgroups: int
    body: Body = field(repr=False, compare=False)
    by_rows: ByRows | None = field(default=None, repr=False, compare=False)

    @property
    def entry(self) -> str:
        """The export's name: it must differ across executables."""
        return f"run_{self.name}"

    def declaration(self) -> str:
        """The executable, for the top of a module."""
        operands = (*self.inputs, *self.outputs)
        binding = "#hal.pipeline.binding<storage_buffer"
        bindings = [f"{binding}, ReadOnly>"] * len(self.inputs) + [f"{binding}>"] * len(
            self.outputs
        )
        layout = f"#hal.pipeline.layout<bindings = [{', '.join(bindings)}]>"
        emitter = Emitter()
        buffers: dict[str, Buffer] = {}
        zero = emitter.index(0)
        for position, operand in enumerate(operands):
            buffer = Buffer(f"%{operand.name}", operand.shape, operand.element)
            flags = " flags(ReadOnly)" if position < len(self.inputs) else ""
            emitter.raw(
                f"{buffer} = hal.interface.binding.subspan layout({layout}) binding({position}) "
                f"alignment(64) offset({zero}){flags} : {buffer.type}"
            )
            buffers[operand.name] = buffer
        group = emitter.op("hal.interface.workgroup.id[0] : index", "index")
        self.body(emitter, buffers, group)
        return (
            f"hal.executable.source private @{self.name} {{\n"
            f"hal.executable.export public @{self.entry} ordinal(0) layout({layout}) "
            "count(%device: !hal.device) -> (index, index, index) {\n"
            f"%x = arith.constant {self.workgroups} : index\n"
            "%one = arith.constant 1 : index\n"
            "hal.return %x, %one, %one : index, index, index\n}\n"
            "builtin.module {\n"
            f"func.func @{self.entry}() {{\n{emitter.text()}\nreturn\n}}\n}}\n}}\n"
        )

    def call(self, arguments: Sequence[str]) -> str:
        """The right-hand side of the call, for tests and tools that write modules as text."""
        types = ", ".join(o.tensor for o in self.inputs)
        results = ", ".join(o.tensor for o in self.outputs)
        if len(self.outputs) > 1:
            results = f"({results})"
        return (
            f"flow.dispatch @{self.name}::@{self.entry}({', '.join(arguments)}) "
            f": ({types}) -> {results}"
        )
