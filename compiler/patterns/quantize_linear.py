"""A linear layer that no kernel takes is computed on int8 codes, where int8 is asked for.

Before::

    %y = torch.aten.linear %x, %w, %b                       %x: [M, K], %w: [N, K], f32

After::

    %low, %high = linalg.generic %x                         each row's least and greatest
    %q = linalg.generic round((%x - %low) * 255 / (%high - %low) - 128)       [M, K] i8
    %sums = linalg.matmul %q, %codes                        i8 x i8 -> i32
    %y = linalg.generic %sums * s[m] * ws[n] + z[m] * wc[n] + %b[n]           [M, N] f32

with s = (high - low) / 255 and z = low + 128 s.

Law: none, values are rounded: w = ws * codes within half a ws, x = s * q + z within half an s
(up to the last bits of f32). Of these the result is exact: sums of products of codes fit in 32
bits up to a depth of 131 000, and z times ws times the sum of a weight's codes (wc, a derived
parameter) is what the zero point adds. Where the weight was rounded for smoothed activations,
%x is multiplied by the smoothing vector first. A row of equal values has s = 0 but for a floor
under high - low, so it is exact.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, rows_and_width
from .linalg_text import MAPS, splice, tensor
from .narrow_precision import narrow_precision
from .product_weights import integer_vectors, rounded_weight
from .torch_ops import parameter_name, tensor_shape

__all__ = ["QuantizeLinear"]

# Beyond this depth a sum of products of codes may not fit in 32 bits.
_DEEPEST = (2**31 - 1) // (128 * 127)

# A CPU has slow code for rounding, and adding 1.5 x 2^23 rounds; a GPU's driver may simplify
# such a sum away, and has an instruction for rounding.
_ROUND = {
    "cpu": "%moved = arith.addf %code, %magic : f32\n  %near = arith.subf %moved, %magic : f32",
    "vulkan": "%near = math.roundeven %code : f32",
}


class QuantizeLinear(Pattern):
    """See the module's docstring."""

    name = "canao.quantize_linear"
    stage: Stage = "torch"
    after = ("canao.fuse_qkv", "canao.kernel_linear")
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every linear layer whose weight is to be int8."""
        if context.precision != "int8":
            return 0
        applied = 0
        for op in operations(module, "torch.aten.linear"):
            if narrow_precision(op, context) != "int8":
                continue
            depth = rows_and_width(op.operands[0])[1]
            if depth > _DEEPEST:
                reason = f"because a sum of {depth} products of codes may not fit in 32 bits"
                context.stays_wide(op, "linear layer", reason)
                continue
            context.narrowed(op, "linear layer", "int8")
            _replace(module, op, context)
            applied += 1
        return applied


def _replace(module: ir.Module, op: Any, context: PatternContext) -> None:
    source, weight, bias = op.operands
    name = parameter_name(weight)
    assert name is not None  # narrow_precision sees to it
    rows, depth = rows_and_width(source)
    outputs = tensor_shape(weight)[0][0]
    name, smoothing = rounded_weight(context, name)
    table = context.parameters
    codes = table.derive("codes", [name], shape=(outputs, depth), dtype="int8")
    vectors = integer_vectors(table, name)
    calls = KernelCalls(module, context, op.location)
    with ir.InsertionPoint(op):
        arguments = [calls.matrix(source), *map(calls.parameter, (codes, *vectors))]
        biased = str(bias.type) != "!torch.none"
        if biased:
            arguments.append(calls.builtin(bias))
        if smoothing:
            arguments.append(calls.parameter(table[smoothing]))
        text = _text(
            rows,
            depth,
            outputs,
            rounding=_ROUND[context.target.kind],
            biased=biased,
            smoothed=bool(smoothing),
        )
        result = splice(text, arguments, op.location, op)
        op.results[0].replace_all_uses_with(calls.restored(result, op.results[0].type))
    op.erase()


def _text(
    rows: int, depth: int, outputs: int, *, rounding: str, biased: bool, smoothed: bool
) -> str:
    x, weight = tensor("f32", rows, depth), tensor("i8", outputs, depth)
    codes, sums = tensor("i8", rows, depth), tensor("i32", rows, outputs)
    y, row, column = (tensor("f32", *shape) for shape in ((rows, outputs), (rows,), (outputs,)))
    more = f", %bias: {column}" if biased else ""
    more += f", %smoothing: {tensor('f32', depth)}" if smoothed else ""
    source = "%smoothed" if smoothed else "%x"
    return f"""{MAPS}
func.func @linear(%x: {x}, %w: {weight}, %ws: {column}, %wc: {column}{more}) -> {y} {{
  %zero = arith.constant 0 : i32
  %highest = arith.constant 3.4028234e+38 : f32
  %lowest = arith.constant -3.4028234e+38 : f32
  %floor = arith.constant 1.0e-30 : f32
  %steps = arith.constant 255.0 : f32
  %step = arith.constant 0.00392156886 : f32
  %middle = arith.constant 128.0 : f32
  %magic = arith.constant 12582912.0 : f32
  {_smooth(x, tensor("f32", depth)) if smoothed else ""}
  %rows = tensor.empty() : {row}
  %above = linalg.fill ins(%highest : f32) outs(%rows : {row}) -> {row}
  %below = linalg.fill ins(%lowest : f32) outs(%rows : {row}) -> {row}
  %ends:2 = linalg.generic {{indexing_maps = [#cell, #row, #row],
      iterator_types = ["parallel", "reduction"]}}
      ins({source} : {x}) outs(%above, %below : {row}, {row}) {{
  ^bb0(%v: f32, %least: f32, %greatest: f32):
    %low = arith.minimumf %v, %least : f32
    %high = arith.maximumf %v, %greatest : f32
    linalg.yield %low, %high : f32, f32
  }} -> ({row}, {row})
  %cells = tensor.empty() : {codes}
  %q = linalg.generic {{indexing_maps = [#cell, #row, #row, #cell],
      iterator_types = ["parallel", "parallel"]}}
      ins({source}, %ends#0, %ends#1 : {x}, {row}, {row}) outs(%cells : {codes}) {{
  ^bb0(%v: f32, %low: f32, %high: f32, %out: i8):
    %range = arith.subf %high, %low : f32
    %width = arith.maximumf %range, %floor : f32
    %factor = arith.divf %steps, %width : f32
    %shifted = arith.subf %v, %low : f32
    %scaled = arith.mulf %shifted, %factor : f32
    %code = arith.subf %scaled, %middle : f32
    {rounding}
    %integer = arith.fptosi %near : f32 to i8
    linalg.yield %integer : i8
  }} -> {codes}
  %unset = tensor.empty() : {sums}
  %start = linalg.fill ins(%zero : i32) outs(%unset : {sums}) -> {sums}
  %sums = linalg.matmul indexing_maps = [#left, #right, #result]
      ins(%q, %w : {codes}, {weight}) outs(%start : {sums}) -> {sums}
  %result = tensor.empty() : {y}
  %y = linalg.generic {{indexing_maps = [#cell, #row, #row, #column, #column{
        ", #column" if biased else ""
    }, #cell], iterator_types = ["parallel", "parallel"]}}
      ins(%sums, %ends#0, %ends#1, %ws, %wc{", %bias" if biased else ""}
      : {sums}, {row}, {row}, {column}, {column}{f", {column}" if biased else ""})
      outs(%result : {y}) {{
  ^bb0(%sum: i32, %low: f32, %high: f32, %scale: f32, %part: f32{
        ", %more: f32" if biased else ""
    }, %out: f32):
    %range = arith.subf %high, %low : f32
    %width = arith.maximumf %range, %floor : f32
    %s = arith.mulf %width, %step : f32
    %float = arith.sitofp %sum : i32 to f32
    %weighted = arith.mulf %float, %scale : f32
    %product = arith.mulf %weighted, %s : f32
    %half = arith.mulf %s, %middle : f32
    %z = arith.addf %half, %low : f32
    %rest = arith.mulf %z, %part : f32
    %whole = arith.addf %product, %rest : f32
    {"%done = arith.addf %whole, %more : f32" if biased else ""}
    linalg.yield {"%done" if biased else "%whole"} : f32
  }} -> {y}
  return %y : {y}
}}
"""


def _smooth(x: str, vector: str) -> str:
    return f"""%unsmoothed = tensor.empty() : {x}
  %smoothed = linalg.generic {{indexing_maps = [#cell, #column, #cell],
      iterator_types = ["parallel", "parallel"]}}
      ins(%x, %smoothing : {x}, {vector}) outs(%unsmoothed : {x}) {{
  ^bb0(%v: f32, %by: f32, %out: f32):
    %scaled = arith.mulf %v, %by : f32
    linalg.yield %scaled : f32
  }} -> {x}"""
