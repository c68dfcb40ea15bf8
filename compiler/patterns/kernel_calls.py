"""Calling kernels from a module in the torch dialect: what the kernel patterns share.

Before::

    %y = torch.aten.<op> %x, ...

After::

    hal.executable.source private @kernel { ... }                 once per kernel
    %a = torch_c.to_builtin_tensor (view of %x as [rows, depth])
    %r = flow.dispatch @kernel::@run_kernel(%a, ...)
    %y = view of (torch_c.from_builtin_tensor %r)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

from ..kernels.executable import Kernel, Operand
from ..kernels.forms import Form
from ..parameters import Parameter
from .base import PatternContext
from .torch_ops import TorchBuilder, tensor_shape, tensor_type

__all__ = ["KernelCalls", "only_user", "rows_and_width"]

# NumPy's word for a parameter's dtype, and the torch dialect's for its element.
_ELEMENTS = {
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int8": "si8",
    "int16": "si16",
    "int32": "si32",
}


class KernelCalls:
    """Emits calls at one insertion point, in one location."""

    def __init__(self, module: ir.Module, context: PatternContext, location: ir.Location) -> None:
        self._module = module
        self._context = context
        self._location = location
        self.build = TorchBuilder(location)

    def call(self, kernel: Kernel, arguments: Sequence[Any]) -> list[Any]:
        """Declare ``kernel`` if this module has not yet; call it with builtin tensors."""
        found = [str(argument.type) for argument in arguments]
        if found != [operand.tensor for operand in kernel.inputs]:
            raise ValueError(f"kernel {kernel.name} was given {', '.join(found)}")
        self._declare(kernel)
        self._context.emitted[kernel.name] = kernel
        path = ir.Attribute.parse(f"@{kernel.name}::@{kernel.entry}")
        segments = ir.DenseI32ArrayAttr.get([0, len(arguments), 0, 0])
        created = ir.Operation.create(
            "flow.dispatch",
            results=[ir.Type.parse(operand.tensor) for operand in kernel.outputs],
            operands=list(arguments),
            attributes={
                "entry_points": ir.ArrayAttr.get([path]),
                "operandSegmentSizes": segments,
            },
            loc=self._location,
        )
        return list(created.results)

    def _declare(self, kernel: Kernel) -> None:
        for op in self._module.body:
            if op.operation.name != "hal.executable.source":
                continue
            if ir.StringAttr(op.attributes["sym_name"]).value == kernel.name:
                return
        declaration = ir.Operation.parse(kernel.declaration())
        ir.InsertionPoint.at_block_begin(self._module.body).insert(declaration)

    def matrix(self, value: Any) -> Any:
        """A torch tensor as a builtin [rows, width] tensor."""
        rows, width = rows_and_width(value)
        _, element = tensor_shape(value)
        return self.builtin(self._view(value, (rows, width), element))

    def restored(self, value: Any, like: ir.Type) -> Any:
        """A builtin f32 matrix as a torch tensor of type ``like``."""
        shape = ir.RankedTensorType(value.type).shape
        flat = tensor_type(tuple(shape), "f32")
        tensor = ir.Operation.create(
            "torch_c.from_builtin_tensor", results=[flat], operands=[value], loc=self._location
        ).result
        if flat == like:
            return tensor
        dims = [int(d) for d in str(like).split("[")[1].split("]")[0].split(",")]
        return self._view(tensor, dims, "f32")

    def parameter(self, parameter: Parameter) -> Any:
        """A parameter as a builtin tensor."""
        element = _ELEMENTS[parameter.dtype]
        return self.builtin(self.build.parameter(parameter.name, parameter.shape, element))

    def smoothing(self, form: Form) -> list[Any]:
        """The vector that a kernel multiplies by before it quantises to ``form``, and the static
        scale and offset that it quantises by; each if there is one."""
        names = [name for name in (form.smoothing, form.static) if name]
        return [self.parameter(self._context.parameters[name]) for name in names]

    def builtin(self, value: Any) -> Any:
        """The builtin tensor behind a torch tensor."""
        shape, element = tensor_shape(value)
        operand = Operand("", shape, element.removeprefix("s"))
        return ir.Operation.create(
            "torch_c.to_builtin_tensor",
            results=[ir.Type.parse(operand.tensor)],
            operands=[value],
            loc=self._location,
        ).result

    def _view(self, value: Any, shape: Sequence[int], element: str) -> Any:
        if tuple(shape) == tensor_shape(value)[0]:
            return value
        return self.build.op(
            "aten.view", [value, self.build.ints(list(shape))], tensor_type(shape, element)
        )


def rows_and_width(value: Any) -> tuple[int, int]:
    """A torch tensor's last dimension, and the product of the others."""
    shape, _ = tensor_shape(value)
    return math.prod(shape[:-1]), shape[-1]


def only_user(value: Any) -> Any | None:
    """The one operation that reads ``value``, once; None where there are more or none."""
    uses = list(value.uses)
    return uses[0].owner.operation if len(uses) == 1 else None
