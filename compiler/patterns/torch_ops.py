"""Building and reading operations of the torch dialect, which has no Python classes here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from iree.compiler import ir

__all__ = [
    "TorchBuilder",
    "constant_of",
    "erase_unused",
    "integers_of",
    "parameter_name",
    "tensor_shape",
    "tensor_type",
]

_VTENSOR = re.compile(r"!torch\.vtensor<\[([\d,]*)\],(\w+)>")


def tensor_shape(value: Any) -> tuple[tuple[int, ...], str]:
    """(shape, element type as the torch dialect spells it) of a static tensor value."""
    match = _VTENSOR.fullmatch(str(value.type))
    if match is None:
        raise ValueError(f"not a static torch tensor: {value.type}")
    dims = tuple(int(d) for d in match[1].split(",") if d)
    return dims, match[2]


def tensor_type(shape: Sequence[int], element: str) -> ir.Type:
    """The value-tensor type of the torch dialect, e.g. ``!torch.vtensor<[1,128],f32>``."""
    return ir.Type.parse(f"!torch.vtensor<[{','.join(map(str, shape))}],{element}>")


def constant_of(value: Any) -> int | float | bool | None:
    """The number behind a ``torch.constant.*`` value; None for ``none`` or anything else."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    op = owner.operation
    if op.name in ("torch.constant.int", "torch.constant.float", "torch.constant.bool"):
        number = op.attributes["value"].value
        return bool(number) if op.name.endswith("bool") else number
    return None


def integers_of(value: Any) -> list[int | float | bool | None]:
    """The numbers of a ``!torch.list<int>``; empty for a list that is not spelled out."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "torch.prim.ListConstruct":
        return []
    return [constant_of(item) for item in owner.operation.operands]


def parameter_name(value: Any) -> str | None:
    """The parameter a value stands for, where it is a placeholder; else None."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "torch.operator":
        return None
    attributes = owner.operation.attributes
    if "canao.name" not in attributes:
        return None
    return str(ir.StringAttr(attributes["canao.name"]).value)


def erase_unused(value: Any) -> None:
    """Erase the operation behind ``value`` if nobody reads it, and then what fed it alone.

    Only operations that a view is made of: they have no effect beside their result.
    """
    operation = getattr(value.owner, "operation", None)
    if operation is None or operation.name not in _VIEWS or list(value.uses):
        return
    operands = list(operation.operands)
    operation.erase()
    for operand in operands:
        erase_unused(operand)


_VIEWS = (
    "torch.aten.permute",
    "torch.aten.slice.Tensor",
    "torch.aten.transpose.int",
    "torch.aten.unflatten.int",
    "torch.aten.view",
)


class TorchBuilder:
    """Creates torch operations at the current insertion point with one location."""

    def __init__(self, location: ir.Location) -> None:
        self._location = location

    def op(self, name: str, operands: Sequence[Any], result: ir.Type) -> Any:
        """One-result operation ``torch.<name>``."""
        created = ir.Operation.create(
            f"torch.{name}", results=[result], operands=list(operands), loc=self._location
        )
        return created.result

    def int(self, number: int) -> Any:
        """``torch.constant.int``."""
        attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)
        return self._constant("int", attribute, "!torch.int")

    def float(self, number: float) -> Any:
        """``torch.constant.float``."""
        return self._constant("float", ir.FloatAttr.get(ir.F64Type.get(), number), "!torch.float")

    def bool(self, value: bool) -> Any:
        """``torch.constant.bool``."""
        return self._constant("bool", ir.BoolAttr.get(value), "!torch.bool")

    def none(self) -> Any:
        """``torch.constant.none``."""
        return self.op("constant.none", [], ir.Type.parse("!torch.none"))

    def ints(self, numbers: Sequence[int]) -> Any:  # type: ignore[valid-type]
        """A ``!torch.list<int>``."""
        items = [self.int(n) for n in numbers]
        return self.op("prim.ListConstruct", items, ir.Type.parse("!torch.list<int>"))

    def parameter(self, name: str, shape: Sequence[int], element: str) -> Any:  # type: ignore[valid-type]
        """A placeholder for a parameter."""
        created = ir.Operation.create(
            "torch.operator",
            results=[tensor_type(shape, element)],
            attributes={
                "name": ir.StringAttr.get("torch.canao.parameter"),
                "canao.name": ir.StringAttr.get(name),
            },
            loc=self._location,
        )
        return created.result

    def _constant(self, kind: str, attribute: ir.Attribute, type_: str) -> Any:
        created = ir.Operation.create(
            f"torch.constant.{kind}",
            results=[ir.Type.parse(type_)],
            attributes={"value": attribute},
            loc=self._location,
        )
        return created.result
