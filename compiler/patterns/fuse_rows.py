"""Kernels that follow each other on the same rows become one dispatch.

Before::

    %h = flow.dispatch @product(%x, %r, ...)        each work-group some columns
    %y, %q, %s = flow.dispatch @layer_norm(%h)      each work-group some rows

After::

    %_, %y, %q, %s = flow.dispatch @rows(%x, %r, ...)    each work-group all of it for some rows

Law: a row of each result depends on the same row of what came before, and on vectors and weights
that were there from the start; so nobody has to wait for the rows of others. The numbers are the
same to the bit. Kernels say by ``by_rows`` that they work so, and ``%h`` may be used by nobody
else before ``%y`` is computed.

A dispatch holds one product: with two, work-groups read more weights than stay near them, and
what lies between takes memory that is warm no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar

from iree.compiler import ir

from ..kernels.executable import ByRows, Kernel
from ..kernels.fused_rows import Step, block_rows, fused_rows, most_weight_bytes
from ..kernels.isa import isa_for
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls

__all__ = ["Calls", "FuseRows", "row_chains", "row_kernel"]

T = TypeVar("T")


class FuseRows(Pattern):
    """See the module's docstring."""

    name = "canao.fuse_rows"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # as the patterns that plan kernels
    after = ("canao.emit_kernels",)

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Fuse as many as fit; returns how many dispatches came of that."""
        most = most_weight_bytes(isa_for(context.target.features).lanes)
        chains = row_chains(operations(module, "flow.dispatch"), _Dispatches(context), most)
        for chain in chains:
            _fuse(module, context, chain)
        if chains:
            _drop_unused(module)
        return len(chains)


class Calls(ABC, Generic[T]):
    """Calls of kernels in program order, as far as fusing must know them."""

    @abstractmethod
    def kernel(self, call: T) -> Kernel | None:
        """What is called; None for a dispatch that is no kernel of canao's."""

    @abstractmethod
    def links(self, chain: Sequence[T], call: T) -> Collection[str]:
        """The operands of ``call``'s kernel that the calls of ``chain`` write."""

    @abstractmethod
    def is_free(self, chain: Sequence[T], call: T) -> bool:
        """Whether all that reads what ``chain`` writes is in it, is ``call``, or comes later."""


def row_chains(found: Iterable[T], calls: Calls[T], most: int) -> list[list[T]]:
    """Calls to fuse: each chain two or more, in program order; no kernel's weights have more than
    ``most`` bytes."""
    chains: list[list[T]] = []
    for call in found:
        if chains and _joins(chains[-1], call, calls, most):
            chains[-1].append(call)
        elif _by_rows(calls.kernel(call), most) is not None:
            chains.append([call])
    return [chain for chain in chains if len(chain) > 1]


def row_kernel(steps: Sequence[Step], private: Collection[int]) -> Kernel:
    """The kernel of a chain; nobody else reads its ``private`` tensors."""
    multiple = max(step.by_rows.multiple for step in steps)
    at_once = block_rows(steps[0].by_rows.rows, multiple)
    return fused_rows(steps, rows_at_once=at_once, private=private)


def _by_rows(kernel: Kernel | None, most: int) -> ByRows | None:
    """How a kernel does a block of rows, where it is worth fusing."""
    if kernel is None or kernel.by_rows is None:
        return None
    by_rows = kernel.by_rows
    few = by_rows.rows <= block_rows(by_rows.rows, by_rows.multiple)
    return by_rows if not few and by_rows.weight_bytes <= most else None


def _joins(chain: Sequence[T], call: T, calls: Calls[T], most: int) -> bool:
    """Whether ``call`` can go on with the rows of a chain."""
    last = _by_rows(calls.kernel(call), most)
    if last is None:
        return False
    found = (_by_rows(calls.kernel(member), most) for member in chain)
    parts = [part for part in found if part is not None]
    parts.append(last)
    if len({part.rows for part in parts}) > 1:
        return False
    if sum(part.weight_bytes > 0 for part in parts) > 1:
        return False
    links = calls.links(chain, call)
    return bool(links) and set(links) <= last.operands and calls.is_free(chain, call)


class _Dispatches(Calls[Any]):
    """Those of a module."""

    def __init__(self, context: PatternContext) -> None:
        self._context = context

    def kernel(self, call: Any) -> Kernel | None:
        return self._context.emitted.get(_entry_of(call))

    def links(self, chain: Sequence[Any], call: Any) -> Collection[str]:
        written = [result for member in chain for result in member.results]
        return [
            operand.name
            for value, operand in zip(
                call.operands, _known(call, self._context).inputs, strict=True
            )
            if value in written
        ]

    def is_free(self, chain: Sequence[Any], call: Any) -> bool:
        if call.operation.block != chain[0].operation.block:
            return False
        members = [*chain, call]
        return all(
            use.owner.operation in members or call.is_before_in_block(use.owner.operation)
            for member in chain
            for value in member.results
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
    members = [op.operation for op in chain]
    private = {
        number(value)
        for value in written
        if all(use.owner.operation in members for use in value.uses)
    }
    kernel = row_kernel(steps, private)
    with ir.InsertionPoint(chain[-1]):
        calls = KernelCalls(module, context, ir.Location.fused([op.location for op in chain]))
        results = calls.call(kernel, [values[n] for n in read if values[n] not in written])
    for value, result in zip(written, results, strict=True):
        if number(value) not in private:
            value.replace_all_uses_with(result)
    for op in reversed(chain):
        op.erase()


def _drop_unused(module: ir.Module) -> None:
    """Kernels that nobody calls any more."""
    called = {_entry_of(op) for op in operations(module, "flow.dispatch")}
    for op in operations(module, "hal.executable.source"):
        if ir.StringAttr(op.attributes["sym_name"]).value not in called:
            op.erase()


def _known(op: Any, context: PatternContext) -> Kernel:
    return context.emitted[_entry_of(op)]


def _entry_of(op: Any) -> str:
    """The name of the executable that a dispatch calls."""
    (path,) = ir.ArrayAttr(op.attributes["entry_points"])
    name: str = ir.SymbolRefAttr(path).value[0]
    return name
