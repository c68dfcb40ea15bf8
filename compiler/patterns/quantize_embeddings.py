"""A large table of embeddings is kept in int8, with one scale for each of its rows.

Before::

    %e = torch.aten.embedding %table, %ids              %table: [V, N] f32

After::

    %q = torch.aten.embedding %codes, %ids              %codes: [V, N] si8
    %s = torch.aten.embedding %scales, %ids             %scales: [V, 1] f32
    %e = torch.aten.mul.Tensor (%q as f32), %s

Law: none, values are rounded: row = scale * codes within half a scale. Rows are read, never
multiplied by anything, so a scale for each is exact to apply. A table that is also the weight of
a linear layer stays one: that layer packs the parameter in its own form.
"""

from __future__ import annotations

import math
from typing import Any

from iree.compiler import ir

from ..quantization.precisions import QUANTIZED
from ..quantization.tables import LEAST_TABLE
from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, parameter_name, tensor_shape, tensor_type

__all__ = ["QuantizeEmbeddings"]

_FLOAT32 = 6  # torch's number for the type


class QuantizeEmbeddings(Pattern):
    """See the module's docstring."""

    name = "canao.quantize_embeddings"
    stage: Stage = "torch"
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every look-up in a large f32 table, where weights are of 8 bits or fewer, or
        where tables were asked to be."""
        narrow = context.narrow_tables
        if not (context.precision in QUANTIZED if narrow is None else narrow):
            return 0
        applied = 0
        for op in operations(module, "torch.aten.embedding"):
            name = parameter_name(op.operands[0])
            shape, element = tensor_shape(op.operands[0])
            if name is not None and element == "f32" and math.prod(shape) >= LEAST_TABLE:
                _replace(op, name, context)
                applied += 1
        return applied


def _replace(op: Any, name: str, context: PatternContext) -> None:
    rows, width = tensor_shape(op.operands[0])[0]
    codes = context.parameters.derive("codes", [name], shape=(rows, width), dtype="int8")
    scales = context.parameters.derive("scales", [name], shape=(rows,), dtype="float32")
    shape, _ = tensor_shape(op.results[0])
    build = TorchBuilder(op.location)
    ids = list(op.operands)[1:]
    with ir.InsertionPoint(op):
        table = build.parameter(codes.name, codes.shape, "si8")
        found = build.op("aten.embedding", [table, *ids], tensor_type(shape, "si8"))
        no = build.bool(False)
        dtype = [build.int(_FLOAT32), no, no, build.none()]
        found = build.op("aten.to.dtype", [found, *dtype], tensor_type(shape, "f32"))
        vector = build.parameter(scales.name, scales.shape, "f32")
        column = build.op(
            "aten.view", [vector, build.ints([rows, 1])], tensor_type((rows, 1), "f32")
        )
        scale = build.op("aten.embedding", [column, *ids], tensor_type((*shape[:-1], 1), "f32"))
        result = build.op("aten.mul.Tensor", [found, scale], op.results[0].type)
    op.results[0].replace_all_uses_with(result)
    op.erase()
