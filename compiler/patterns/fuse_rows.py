"""Kernels that follow each other on the same rows become one dispatch.

Before::

    %h = flow.dispatch @product(%x, %r, ...)        each work-group some columns
    %y, %q, %s = flow.dispatch @layer_norm(%h)      each work-group some rows

After::

    %h, %y, %q, %s = flow.dispatch @rows(%x, %r, ...)    each work-group all of it for some rows

Law: a row of each result depends on the same row of what came before, and on vectors and weights
that were there from the start; so nobody has to wait for the rows of others. The numbers are the
same to the bit. Kernels say by ``by_rows`` that they work so, and ``%h`` may be used by nobody
else before ``%y`` is computed.

A dispatch holds one product: with two, work-groups read more weights than stay near them, and
what lies between takes memory that is warm no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

from ..kernels.executable import Kernel
from ..kernels.fused_rows import MOST_WEIGHT_BYTES, Step, block_rows, fused_rows
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls

__all__ = ["FuseRows"]


class FuseRows(Pattern):
    """See the module's docstring."""

    name = "canao.fuse_rows"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # as the patterns that plan kernels
    after = ("canao.emit_kernels",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Fuse as many as fit; returns how many dispatches came of that."""
        chains = _chains(operations(module, "flow.dispatch"), context)
        for chain in chains:
            _fuse(module, context, chain)
        if chains:
            _drop_unused(module)
        return len(chains)


def _chains(dispatches: Sequence[Any], context: PatternContext) -> list[list[Any]]:
    """Dispatches to fuse: each chain two or more, in program order."""
    chains: list[list[Any]] = []
    for op in dispatches:
        if chains and _joins(chains[-1], op, context):
            chains[-1].append(op)
        elif _may_fuse(op, context):
            chains.append([op])
    return [chain for chain in chains if len(chain) > 1]


def _may_fuse(op: Any, context: PatternContext) -> bool:
    kernel = _kernel_of(op, context)
    if kernel is None or kernel.by_rows is None:
        return False
    by_rows = kernel.by_rows
    few = by_rows.rows <= block_rows(by_rows.rows, by_rows.multiple)
    return not few and by_rows.weight_bytes <= MOST_WEIGHT_BYTES


def _joins(chain: Sequence[Any], op: Any, context: PatternContext) -> bool:
    """Whether ``op`` can go on with the rows of a chain."""
    if not _may_fuse(op, context) or op.operation.block != chain[0].operation.block:
        return False
    kernels = [_known(member, context) for member in (*chain, op)]
    parts = [kernel.by_rows for kernel in kernels if kernel.by_rows is not None]
    if len({part.rows for part in parts}) > 1:
        return False
    if sum(part.weight_bytes > 0 for part in parts) > 1:
        return False
    written = [result for member in chain for result in member.results]
    links = [
        operand.name
        for value, operand in zip(op.operands, kernels[-1].inputs, strict=True)
        if value in written
    ]
    if not links or not set(links) <= parts[-1].operands:
        return False
    members = [*chain, op]
    return all(
        use.owner.operation in members or op.is_before_in_block(use.owner.operation)
        for value in written
        for use in value.uses
    )


def _fuse(module: ir.Module, context: PatternContext, chain: Sequence[Any]) -> None:
    """Replace a chain by one dispatch, where the last of it stands."""
    values: list[Any] = []

    def number(value: Any) -> int:
        if value not in values:
            values.append(value)
        return values.index(value)

    steps = [
        Step(
            _known(op, context),
            tuple(number(value) for value in op.operands),
            tuple(number(value) for value in op.results),
        )
        for op in chain
    ]
    written = [result for op in chain for result in op.results]
    read = list(dict.fromkeys(n for step in steps for n in step.inputs))
    multiple = max(step.by_rows.multiple for step in steps)
    kernel = fused_rows(steps, rows_at_once=block_rows(steps[0].by_rows.rows, multiple))
    with ir.InsertionPoint(chain[-1]):
        calls = KernelCalls(module, context, ir.Location.fused([op.location for op in chain]))
        results = calls.call(kernel, [values[n] for n in read if values[n] not in written])
    for value, result in zip(written, results, strict=True):
        value.replace_all_uses_with(result)
    for op in reversed(chain):
        op.erase()


def _drop_unused(module: ir.Module) -> None:
    """Kernels that nobody calls any more."""
    called = {_entry_of(op) for op in operations(module, "flow.dispatch")}
    for op in operations(module, "hal.executable.source"):
        if ir.StringAttr(op.attributes["sym_name"]).value not in called:
            op.erase()


def _kernel_of(op: Any, context: PatternContext) -> Kernel | None:
    return context.emitted.get(_entry_of(op))


def _known(op: Any, context: PatternContext) -> Kernel:
    return context.emitted[_entry_of(op)]


def _entry_of(op: Any) -> str:
    """The name of the executable that a dispatch calls."""
    (path,) = ir.ArrayAttr(op.attributes["entry_points"])
    name: str = ir.SymbolRefAttr(path).value[0]
    return name
