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

A mask row that allows nothing gives NaN in the formula and zeros in PyTorch's operator. The bias
uses the lowest finite number instead of -inf, so such a row averages the values, and the result
is multiplied by whether its row allows anything (0 or 1, computed once like the bias).
"""

from __future__ import annotations

import math
from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations
from .torch_ops import TorchBuilder, constant_of, tensor_shape, tensor_type

__all__ = ["DecomposeAttention"]

# float32's lowest: adding any score to it gives it back.
_LOWEST = -3.4028234663852886e38


class DecomposeAttention(Pattern):
    """See the module's docstring."""

    name = "canao.decompose_attention"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Rewrite every scaled_dot_product_attention without dropout."""
        masks: list[tuple[Any, tuple[Any, Any]]] = []
        applied = 0
        for op in operations(module, "torch.aten.scaled_dot_product_attention"):
            if constant_of(op.operands[4]) not in (0, 0.0) or not _has_plain_batches(op):
                continue
            with ir.InsertionPoint(op):
                result = self._decompose(op, masks)
            op.results[0].replace_all_uses_with(result)
            op.erase()
            applied += 1
        return applied

    def _decompose(self, op: Any, masks: list[tuple[Any, tuple[Any, Any]]]) -> Any:
        build = TorchBuilder(op.location)
        query, key, value, mask = op.operands[:4]
        (*batch, rows, depth), element = tensor_shape(query)
        (*key_batch, columns, _), _ = tensor_shape(key)
        key, value = self._repeat_heads(build, key, value, tuple(batch), tuple(key_batch))
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
        bias, allowed = None, None
        if constant_of(op.operands[5]):
            bias = self._causal(build, rows, columns, element)
        elif str(mask.type) != "!torch.none":
            bias, allowed = self._masked(build, mask, element, masks)
        if bias is not None:
            product = build.op("aten.add.Tensor", [product, bias, build.int(1)], scores)
        weights = build.op("aten.softmax.int", [product, build.int(-1), build.none()], scores)
        result = build.op("aten.matmul", [weights, value], op.results[0].type)
        if allowed is not None:
            result = build.op("aten.mul.Tensor", [result, allowed], result.type)
        return result

    def _repeat_heads(
        self,
        build: TorchBuilder,
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

    def _masked(
        self,
        build: TorchBuilder,
        mask: Any,
        element: str,
        masks: list[tuple[Any, tuple[Any, Any]]],
    ) -> tuple[Any, Any]:
        """(what is added to the scores, 1 or 0 for rows that allow something or nothing)."""
        for known, made in masks:
            if known == mask:
                return made
        at = (
            ir.InsertionPoint.at_block_begin(mask.owner)
            if isinstance(mask.owner, ir.Block)
            else ir.InsertionPoint.after(mask.owner.operation)
        )
        shape, kind = tensor_shape(mask)
        with at:
            zero, one, lowest = build.float(0.0), build.float(1.0), build.float(_LOWEST)
            if kind == "i1":
                full = tensor_type(shape, element)
                bias = build.op("aten.where.Scalar", [mask, zero, lowest], full)
            else:
                bias = build.op("aten.clamp", [mask, lowest, build.none()], mask.type)
            row = (*shape[:-1], 1)
            floor = build.op(
                "aten.amax",
                [bias if kind == "i1" else mask, build.ints((-1,)), build.bool(True)],
                tensor_type(row, element),
            )
            # A float mask forbids with -inf alone: its lowest finite number still allows.
            relation = "aten.gt.Scalar" if kind == "i1" else "aten.ge.Scalar"
            anything = build.op(relation, [floor, lowest], tensor_type(row, "i1"))
            allowed = build.op(
                "aten.where.Scalar", [anything, one, zero], tensor_type(row, element)
            )
        masks.append((mask, (bias, allowed)))
        return bias, allowed

    def _causal(self, build: TorchBuilder, rows: int, columns: int, element: str) -> Any:
        full = tensor_type((rows, columns), element)
        none = build.none()
        size = build.ints((rows, columns))
        value = build.float(_LOWEST)
        ones = build.op("aten.full", [size, value, none, none, none, none], full)
        return build.op("aten.triu", [ones, build.int(1)], full)


def _has_plain_batches(op: Any) -> bool:
    """Whether queries and keys have the same batch, or differ in grouped heads alone."""
    (*batch, _, _), _ = tensor_shape(op.operands[0])
    (*keys, _, _), _ = tensor_shape(op.operands[1])
    (*values, _, _), _ = tensor_shape(op.operands[2])
    if keys != values:
        return False
    grouped = len(batch) == len(keys) == 2 and batch[0] == keys[0] and batch[1] % keys[1] == 0
    return batch == keys or grouped
