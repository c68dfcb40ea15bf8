"""Columns of a matrix that are picked: linalg as text, for patterns and for the chooser.

%y[m, i] = %x[m, places[i]]        a dispatch of IREE's own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .executable import Operand

__all__ = ["Pick"]


@dataclass(frozen=True)
class Pick:
    """``kept`` of ``size`` columns; the face of a `Kernel` as far as programs of text need it."""

    rows: int
    size: int
    kept: int

    @property
    def name(self) -> str:
        """What the function is called."""
        return f"pick_{self.rows}x{self.size}_to_{self.kept}"

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The matrix and the places."""
        return Operand("x", (self.rows, self.size), "f32"), Operand("places", (self.kept,), "i32")

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The narrower matrix."""
        return (Operand("picked", (self.rows, self.kept), "f32"),)

    def declaration(self) -> str:
        """The function."""
        (x, places), (y,) = (one.tensor for one in self.inputs), (o.tensor for o in self.outputs)
        return f"""func.func private @{self.name}(%x: {x}, %places: {places}) -> {y} {{
  %unset = tensor.empty() : {y}
  %y = linalg.generic {{indexing_maps = [affine_map<(d0, d1) -> (d1)>,
      affine_map<(d0, d1) -> (d0, d1)>], iterator_types = ["parallel", "parallel"]}}
      ins(%places : {places}) outs(%unset : {y}) {{
  ^bb0(%place: i32, %out: f32):
    %row = linalg.index 0 : index
    %at = arith.index_cast %place : i32 to index
    %value = tensor.extract %x[%row, %at] : {x}
    linalg.yield %value : f32
  }} -> {y}
  return %y : {y}
}}
"""

    def call(self, arguments: Sequence[str]) -> str:
        """The right-hand side of the call."""
        types = ", ".join(one.tensor for one in self.inputs)
        (result,) = self.outputs
        return f"call @{self.name}({', '.join(arguments)}) : ({types}) -> {result.tensor}"
