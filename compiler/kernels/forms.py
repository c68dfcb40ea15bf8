"""How a kernel wants to find a matrix of activations: its element and its padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .engines.base import Engine
from .executable import Operand
from .quantize import Scheme

__all__ = ["Form", "form_for", "plain"]


Kind = Literal["f32", "bf16", "u8", "s8"]


@dataclass(frozen=True)
class Form:
    """A matrix [rows, width] as ``kind``, in a buffer of [padded_rows, stride].

    ``kind`` is ``f32``, ``bf16`` (held as i16), ``u8`` or ``s8``; the last two come with the
    scale and offset of each row, [padded_rows, 2] f32. ``smoothing`` names the parameter [width]
    that each row is multiplied by before it is quantised; empty for none. ``static`` names the
    parameter [2] that is the scale and offset of every row; empty where each row has its own,
    which is ``symmetric`` about zero or reaches from its least to its greatest value.
    """

    kind: Kind
    rows: int
    width: int
    padded_rows: int
    stride: int
    smoothing: str = ""
    static: str = ""
    symmetric: bool = False

    @property
    def scheme(self) -> Scheme:
        """How its rows are quantised, where it is ``integer``."""
        if self.static:
            return "static"
        return "symmetric" if self.symmetric else "asymmetric"

    @property
    def integer(self) -> bool:
        """Whether it comes with scales."""
        return self.kind in ("u8", "s8")

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The tensors that make it."""
        element = {"f32": "f32", "bf16": "i16", "u8": "i8", "s8": "i8"}[self.kind]
        values = Operand("values", (self.padded_rows, self.stride), element)
        if self.integer:
            return values, Operand("row_scales", (self.padded_rows, 2), "f32")
        return (values,)


def plain(rows: int, width: int, kind: Kind = "f32") -> Form:
    """Without padding."""
    return Form(kind, rows, width, rows, width)


def form_for(
    engine: Engine,
    rows: int,
    width: int,
    smoothing: str = "",
    static: str = "",
    *,
    symmetric: bool = False,
) -> Form:
    """What `product_kernel` takes with this engine."""
    kinds: dict[str, Kind] = {
        "f32": "f32",
        "bf16": "bf16",
        "int8": "s8" if engine.signed else "u8",
    }
    return Form(
        kinds[engine.precision],
        rows,
        width,
        engine.padded_rows(rows),
        engine.row_stride(width),
        smoothing,
        static,
        symmetric and engine.precision == "int8",
    )
