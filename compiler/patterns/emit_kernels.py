"""Planned kernels become calls, each reading and writing the forms that suit its neighbours.

Before::

    %h = torch.operator "torch.canao.kernel"(%x) {plan = 0}      layer norm
    %q = torch.operator "torch.canao.kernel"(%h, ...) {plan = 1}  int8 product
    %y = torch.aten.add.Tensor %q, %h

After::

    %h32, %h8, %scales = flow.dispatch @layer_norm...(%x)   quantised in the same dispatch
    %q32 = flow.dispatch @product...(%h8, %scales, ...)
    %y = torch.aten.add.Tensor %q32, %h32

Law: none is needed, the values are the same; what changes is who converts them, and when. A form
that the writer of a value does not offer is made by a kernel of its own, once for all readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

from ..kernels.convert import convert_kernel
from ..kernels.executable import Kernel
from ..kernels.forms import Form, plain
from ..kernels.isa import Isa, isa_for
from ..kernels.quantize import quantize_kernel
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, rows_and_width
from .planned import Planned, plan_of, written_forms

__all__ = ["EmitKernels", "conversion"]

Forms = dict[Form, Sequence[Any]]


class EmitKernels(Pattern):
    """See the module's docstring. Required: a planned kernel has no lowering."""

    name = "canao.emit_kernels"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # as the patterns that plan kernels
    required = True
    after = (
        "canao.kernel_attention",
        "canao.kernel_embedding",
        "canao.kernel_linear",
        "canao.kernel_layer_norm",
    )

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Write every planned kernel."""
        stand_ins = [op for op in operations(module, "torch.operator") if plan_of(op, context)]
        known: list[tuple[Any, Forms]] = []
        for op in stand_ins:
            planned = plan_of(op, context)
            assert planned is not None
            _emit(module, context, op, planned, known)
        for op in reversed(stand_ins):
            op.erase()
        return len(stand_ins)


def _emit(
    module: ir.Module,
    context: PatternContext,
    op: Any,
    planned: Planned,
    known: list[tuple[Any, Forms]],
) -> None:
    calls = KernelCalls(module, context, op.location)
    result = op.results[0]
    with ir.InsertionPoint(op):
        operands = [
            [value] if form is None else _in_form(module, context, value, form, known)
            for value, form in zip(op.operands, planned.wants(), strict=True)
        ]
        wanted, others = _readers(result, context)
        flat = plain(*rows_and_width(result))
        forms = written_forms(planned, wanted, flat, others=others)
        written: Forms = dict(planned.emit(calls, operands, forms))
        known.append((result, written))
        if others:
            restored = calls.restored(written[flat][0], result.type)
            _replace(result, restored, context)


def _readers(result: Any, context: PatternContext) -> tuple[list[Form], bool]:
    """The forms in which planned kernels read ``result``, and whether anything else reads it."""
    wanted: dict[Form, None] = {}
    others = False
    for use in result.uses:
        planned = plan_of(use.owner.operation, context)
        form = planned.wants()[use.operand_number] if planned is not None else None
        if form is None:
            others = True
        else:
            wanted[form] = None
    return list(wanted), others


def _replace(result: Any, restored: Any, context: PatternContext) -> None:
    """``restored`` for every reader that takes the torch tensor as it is."""
    for use in list(result.uses):
        owner = use.owner.operation
        planned = plan_of(owner, context)
        if planned is None or planned.wants()[use.operand_number] is None:
            owner.operands[use.operand_number] = restored


def _in_form(
    module: ir.Module,
    context: PatternContext,
    value: Any,
    form: Form,
    known: list[tuple[Any, Forms]],
) -> Sequence[Any]:
    """The builtin tensors of ``value`` in ``form``: known, or converted where it is defined."""
    forms = next((forms for other, forms in known if other == value), None)
    if forms is None:
        forms = {}
        known.append((value, forms))
    if form in forms:
        return forms[form]
    flat = plain(form.rows, form.width)
    with _after(value, forms):
        calls = KernelCalls(module, context, _location(value))
        if flat not in forms:
            forms[flat] = [calls.matrix(value)]
        if form != flat:
            kernel = conversion(form, isa_for(context.target.features))
            forms[form] = calls.call(kernel, [*forms[flat], *calls.smoothing(form)])
    return forms[form]


def conversion(form: Form, isa: Isa) -> Kernel:
    """The kernel that makes ``form`` of a plain f32 matrix."""
    if form.kind == "bf16":
        return convert_kernel(
            form.rows,
            form.width,
            lanes=isa.lanes,
            native=isa.native_bf16,
            padded_rows=form.padded_rows,
            row_stride=form.stride,
        )
    if form.kind not in ("u8", "s8"):
        raise ValueError(f"no kernel makes {form}")
    return quantize_kernel(
        form.rows,
        form.width,
        lanes=isa.lanes,
        form=form.kind,
        scheme=form.scheme,
        smoothing=bool(form.smoothing),
        padded_rows=form.padded_rows,
        row_stride=form.stride,
    )


def _after(value: Any, forms: Forms) -> ir.InsertionPoint:
    """Right after the value, and after what is known of it, is computed."""
    source = next(iter(forms.values()))[0] if forms else value
    if isinstance(source.owner, ir.Block):
        return ir.InsertionPoint.at_block_begin(source.owner)
    return ir.InsertionPoint.after(source.owner.operation)


def _location(value: Any) -> ir.Location:
    owner = value.owner
    return ir.Location.unknown() if isinstance(owner, ir.Block) else owner.operation.location
