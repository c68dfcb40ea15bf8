"""A linear layer that no kernel takes reads its weight in f16, bf16 or int8, where
that is asked for.

Before::

    %y = torch.aten.linear %x, %w, %b                  %x: [M, K], %w: [N, K], f32

After::

    %sums = linalg.generic %x, %narrow                 f32 x (f16 or i8 as f32) -> f32
    %y = linalg.generic %sums + %b                     (i8: %sums * %scale + %b)

Law: none, a weight is rounded to the narrow type, of which every value is one of f32; the scale
of an output stands outside the sum (distributivity). The
activations and the sums stay in f32, so nothing overflows and no other value is rounded; the
weight takes half the memory and half the time to read. GPUs get bf16 as 16-bit integers, its bits
being the upper half of f32's: IREE has no form of bf16 for them in every shape.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from ..parameters import Parameter
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, rows_and_width
from .linalg_text import MAPS, splice, tensor
from .narrow_precision import narrow_precision
from .product_weights import rounded_weight
from .torch_ops import parameter_name, tensor_shape

__all__ = ["NarrowLinear"]

_NARROW = ("f16", "bf16", "int8-weights")
# Four bits have no form of their own here: their values are stored in eight.
_STORED = {"int4-weights": "int8-weights"}
# The element that is stored, and NumPy's word for it.
_DTYPES = {"f16": "float16", "bf16": "bfloat16", "i16": "int16"}
_BITS = """%bits = arith.extui %narrow : i16 to i32
    %upper = arith.shli %bits, %half : i32
    %wide = arith.bitcast %upper : i32 to f32"""


class NarrowLinear(Pattern):
    """See the module's docstring."""

    name = "canao.narrow_linear"
    stage: Stage = "torch"
    after = ("canao.fuse_qkv", "canao.kernel_linear")
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every linear layer whose weight alone is to be narrow."""
        if context.precision == "f32":
            return 0
        applied = 0
        for op in operations(module, "torch.aten.linear"):
            precision = narrow_precision(op, context)
            precision = _STORED.get(precision, precision)
            if precision in _NARROW:
                context.narrowed(op, "linear layer", precision)
                _replace(module, op, context, precision)
                applied += 1
        return applied


def _replace(module: ir.Module, op: Any, context: PatternContext, precision: str) -> None:
    element = "i16" if precision == "bf16" and context.target.kind == "vulkan" else precision
    element = "i8" if precision == "int8-weights" else element
    source, weight, bias = op.operands
    name = parameter_name(weight)
    assert name is not None  # narrow_precision sees to it
    rows, depth = rows_and_width(source)
    outputs = tensor_shape(weight)[0][0]
    shape, table = (outputs, depth), context.parameters
    vectors: list[Parameter] = []
    if element == "i8":
        name, _ = rounded_weight(context, name)
        narrow = table.derive("codes", [name], shape=shape, dtype="int8")
        vectors.append(table.derive("scales", [name], shape=(outputs,), dtype="float32"))
    else:
        dtype = _DTYPES[element]
        narrow = table.derive("narrowed", [name], shape=shape, dtype=dtype, element=element)
    biased = str(bias.type) != "!torch.none"
    calls = KernelCalls(module, context, op.location)
    with ir.InsertionPoint(op):
        arguments = [calls.matrix(source), *map(calls.parameter, (narrow, *vectors))]
        arguments += [calls.builtin(bias)] if biased else []
        text = _text(rows, depth, outputs, element, biased=biased)
        result = splice(text, arguments, op.location, op)
        op.results[0].replace_all_uses_with(calls.restored(result, op.results[0].type))
    op.erase()


def _text(rows: int, depth: int, outputs: int, element: str, *, biased: bool) -> str:
    x, weight = tensor("f32", rows, depth), tensor(element, outputs, depth)
    y, column = tensor("f32", rows, outputs), tensor("f32", outputs)
    wide = f"%wide = arith.extf %narrow : {element} to f32"
    wide = {"i16": _BITS, "i8": "%wide = arith.sitofp %narrow : i8 to f32"}.get(element, wide)
    vectors = f", %scale: {column}" if element == "i8" else ""
    vectors += f", %bias: {column}" if biased else ""
    last, scaled = "%sums", ""
    if element == "i8":
        last, scaled = "%scaled", _by_output("%scaled", "mulf", "%sums", "%scale", y, column)
    result, finish = last, ""
    if biased:
        result, finish = "%y", _by_output("%y", "addf", last, "%bias", y, column)
    return f"""{MAPS}
func.func @linear(%x: {x}, %w: {weight}{vectors}) -> {y} {{
  %zero = arith.constant 0.0 : f32
  %half = arith.constant 16 : i32
  %unset = tensor.empty() : {y}
  %start = linalg.fill ins(%zero : f32) outs(%unset : {y}) -> {y}
  %sums = linalg.generic {{indexing_maps = [#left, #right, #result],
      iterator_types = ["parallel", "parallel", "reduction"]}}
      ins(%x, %w : {x}, {weight}) outs(%start : {y}) {{
  ^bb0(%v: f32, %narrow: {element}, %sum: f32):
    {wide}
    %product = arith.mulf %v, %wide : f32
    %more = arith.addf %sum, %product : f32
    linalg.yield %more : f32
  }} -> {y}
  {scaled}
  {finish}
  return {result} : {y}
}}
"""


def _by_output(name: str, op: str, value: str, vector: str, y: str, column: str) -> str:
    return f"""{name} = linalg.generic {{indexing_maps = [#cell, #column, #cell],
      iterator_types = ["parallel", "parallel"]}}
      ins({value}, {vector} : {y}, {column}) outs(%unset : {y}) {{
  ^bb0(%v: f32, %b: f32, %out: f32):
    %whole = arith.{op} %v, %b : f32
    linalg.yield %whole : f32
  }} -> {y}"""
