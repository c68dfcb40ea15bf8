"""Kernels that are decided on, but not yet written.

A kernel pattern replaces operations by ``torch.operator "torch.canao.kernel"(...) {plan = n}``
and notes a `Planned` under that number. What a kernel writes best depends on who reads it (an
int8 product wants its input quantised, attention wants bf16), and readers are decided on by
other patterns: so `emit_kernels` writes all of them at the end, in program order, when every
reader has said in which `Form` it wants what it reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from iree.compiler import ir

from ..kernels.forms import Form
from .base import PatternContext
from .kernel_calls import KernelCalls

__all__ = ["KERNEL_OP", "Planned", "plan_of", "plan_op", "written_forms"]

KERNEL_OP = "torch.canao.kernel"


class Planned(ABC):
    """One kernel call to come. Its operands are those of the operation that stands for it."""

    @abstractmethod
    def wants(self) -> Sequence[Form | None]:
        """The form of each operand; None for one that is taken as the torch tensor it is."""

    @abstractmethod
    def offers(self, wanted: Sequence[Form]) -> Sequence[Form]:
        """What the kernel writes, given all forms that are wanted: all of them, or the plain
        f32 matrix with as many others as it can (kernels of their own make the rest of it)."""

    @abstractmethod
    def emit(
        self,
        calls: KernelCalls,
        operands: Sequence[Sequence[Any]],
        forms: Sequence[Form],
    ) -> Mapping[Form, Sequence[Any]]:
        """Write the call; returns the builtin tensors of each of ``forms``.

        ``operands``: the builtin tensors of each operand's form, or the torch tensor itself.
        """


def written_forms(
    planned: Planned, wanted: Sequence[Form], flat: Form, *, others: bool
) -> Sequence[Form]:
    """What a kernel is to write, given the forms that planned readers want of its result;
    ``others``: whether anything else reads it, as the ``flat`` f32 matrix."""
    plainly = others or not wanted
    return planned.offers([*wanted, flat] if plainly and flat not in wanted else wanted)


def plan_op(
    context: PatternContext,
    planned: Planned,
    operands: Sequence[Any],
    result: ir.Type,
    location: ir.Location,
) -> Any:
    """The stand-in for a planned kernel, at the current insertion point; returns its result."""
    context.plans.append(planned)
    number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), len(context.plans) - 1)
    return ir.Operation.create(
        "torch.operator",
        results=[result],
        operands=list(operands),
        attributes={"name": ir.StringAttr.get(KERNEL_OP), "plan": number},
        loc=location,
    ).result


def plan_of(op: Any, context: PatternContext) -> Planned | None:
    """The planned kernel that an operation stands for."""
    if op.name != "torch.operator" or "plan" not in op.attributes:
        return None
    if ir.StringAttr(op.attributes["name"]).value != KERNEL_OP:
        return None
    number: int = ir.IntegerAttr(op.attributes["plan"]).value
    return context.plans[number]
