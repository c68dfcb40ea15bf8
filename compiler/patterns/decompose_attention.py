"""Attention as two products and a softmax.

Before::

    %o = torch.aten.scaled_dot_product_attention %q, %k, %v, %mask, ...   [B,H,S,D]

After::

    %s = torch.aten.matmul %q, transpose(%k)          [B,H,S,S]
    %t = %s * scale  (+ %bias)                        %bias = 0 where the mask is true, else -inf
    %p = torch.aten.softmax.int %t, -1
    %o = torch.aten.matmul %p, %v

Law: the definition of attention, softmax(q k^T / sqrt(d) + bias) v. The compiler's own fused
attention is a loop over keys with running maxima: right for long sequences on server GPUs,
about ten times slower at phone lengths on a CPU, and without a form on Vulkan. Two batched
products take the matrix-product path of either, and the scale, the bias and the softmax fuse
around them. The bias is computed once and shared by all layers.

A mask row that is false everywhere gives NaN in the formula; PyTorch's operator gives zeros
there. The bias uses the lowest finite number instead of -inf, so such a row averages the
values: a row with nothing to attend to is padding, and its output is never returned.
"""

from __future__ import annotations

import math
from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, constant_of, tensor_shape, tensor_type

__all__ = ["DecomposeAttention"]

_LOWEST = -3.0e38


class DecomposeAttention(Pattern):
    """See the module's docstring."""

    name = "canao.decompose_attention"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Rewrite every scaled_dot_product_attention without dropout."""
        biases: list[tuple[Any, Any]] = []
        applied = 0
        for op in operations(module, "torch.aten.scaled_dot_product_attention"):
            if constant_of(op.operands[4]) not in (0, 0.0):
                continue
            with ir.InsertionPoint(op):
                result = self._decompose(op, biases)
            op.results[0].replace_all_uses_with(result)
            op.erase()
            applied += 1
        return applied

    def _decompose(self, op: Any, biases: list[tuple[Any, Any]]) -> Any:
        build = TorchBuilder(op.location)
        query, key, value, mask = op.operands[:4]
        (*batch, rows, depth), element = tensor_shape(query)
        (*key_batch, columns, _), _ = tensor_shape(key)
        key, value = self._repeat_heads(build, op, key, value, tuple(batch), tuple(key_batch))
        scale = constant_of(op.operands[6])
        factor = float(scale) if scale is not None else 1.0 / math.sqrt(depth)
        scores = tensor_type((*batch, rows, columns), element)
        transposed = build.op(
            "aten.transpose.int",
            [key, build.int(-2), build.int(-1)],
            tensor_type((*batch, depth, columns), element),
        )
        query = build.op("aten.mul.Scalar", [query, build.float(factor)], query.type)
        product = build.op("aten.matmul", [query, transposed], scores)
        bias = self._bias(build, op, mask, rows, columns, element, biases)
        if bias is not None:
            product = build.op("aten.add.Tensor", [product, bias, build.int(1)], scores)
        weights = build.op("aten.softmax.int", [product, build.int(-1), build.none()], scores)
        return build.op("aten.matmul", [weights, value], op.results[0].type)

    def _repeat_heads(
        self,
        build: TorchBuilder,
        op: Any,
        key: Any,
        value: Any,
        batch: tuple[int, ...],
        key_batch: tuple[int, ...],
    ) -> tuple[Any, Any]:
        """Grouped-query attention: each key head serves several query heads."""
        if batch == key_batch:
            return key, value
        groups = batch[1] // key_batch[1]
        repeated = []
        for tensor in (key, value):
            (b, heads, length, depth), element = tensor_shape(tensor)
            wide = build.op(
                "aten.unsqueeze",
                [tensor, build.int(2)],
                tensor_type((b, heads, 1, length, depth), element),
            )
            shape = (b, heads, groups, length, depth)
            false = build.bool(False)
            wide = build.op(
                "aten.expand", [wide, build.ints(shape), false], tensor_type(shape, element)
            )
            flat = (b, heads * groups, length, depth)
            repeated.append(
                build.op("aten.view", [wide, build.ints(flat)], tensor_type(flat, element))
            )
        return repeated[0], repeated[1]

    def _bias(
        self,
        build: TorchBuilder,
        op: Any,
        mask: Any,
        rows: int,
        columns: int,
        element: str,
        biases: list[tuple[Any, Any]],
    ) -> Any:
        """The number added to the scores, or None: from a mask of either kind, or causality."""
        if constant_of(op.operands[5]):
            return self._causal(build, rows, columns, element)
        if str(mask.type) == "!torch.none":
            return None
        shape, kind = tensor_shape(mask)
        if kind != "i1":
            return mask
        for known, bias in biases:
            if known == mask:
                return bias
        at = (
            ir.InsertionPoint.at_block_begin(mask.owner)
            if isinstance(mask.owner, ir.Block)
            else ir.InsertionPoint.after(mask.owner.operation)
        )
        with at:
            bias = build.op(
                "aten.where.Scalar",
                [mask, build.float(0.0), build.float(_LOWEST)],
                tensor_type(shape, element),
            )
        biases.append((mask, bias))
        return bias

    def _causal(self, build: TorchBuilder, rows: int, columns: int, element: str) -> Any:
        full = tensor_type((rows, columns), element)
        none = build.none()
        size = build.ints((rows, columns))
        value = build.float(_LOWEST)
        ones = build.op("aten.full", [size, value, none, none, none, none], full)
        return build.op("aten.triu", [ones, build.int(1)], full)
