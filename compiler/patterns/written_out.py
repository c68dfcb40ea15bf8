"""What kernels would serve, had the model not written it out of smaller operations.

Before (each stays as it is)::

    %s = torch.aten.bmm %q, %k;  %p = torch.aten.softmax.int %s + ...;  %o = torch.aten.bmm %p, %v
    %r = torch.aten.rsqrt (torch.aten.mean.dim (%x * %x) + eps);  %y = %x * %r
    %y = torch.aten.matmul %x, %w                        %w: a weight of the model
    %g = %y * torch.aten.sigmoid (1.702 * %y)            an activation that no epilogue takes in

After: the same, and the report says so: linalg serves these, and people should know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iree.compiler import ir

from .base import operations
from .torch_ops import parameter_name

__all__ = ["activations", "attentions", "norms", "weight_products"]

_VIEWS = tuple(
    f"torch.aten.{name}"
    for name in (
        "clone",
        "contiguous",
        "expand",
        "permute",
        "reshape",
        "t",
        "to.dtype",
        "transpose.int",
        "unsqueeze",
        "view",
    )
)
_PRODUCTS = tuple(f"torch.aten.{name}" for name in ("matmul", "mm", "bmm", "addmm", "baddbmm"))
_SOFTMAX = ("torch.aten.softmax.int", "torch.aten._softmax")
_ROOTS = ("torch.aten.rsqrt", "torch.aten.sqrt")
_MEANS = ("torch.aten.mean.dim", "torch.aten.var.correction", "torch.aten.var.dim")
_ACTIVATIONS = ("gelu", "relu", "silu", "tanh", "sigmoid", "erf")


def attentions(module: ir.Module) -> Iterator[Any]:
    """Each softmax whose result is multiplied by something: weights of an attention."""
    for op in _every(module, _SOFTMAX):
        if any(user.name in _PRODUCTS for user in _users(op.results[0])):
            yield op


def norms(module: ir.Module) -> Iterator[Any]:
    """Each root of a mean plus a number."""
    for op in _every(module, _ROOTS):
        added = _owner(op.operands[0])
        if added is None or added.name != "torch.aten.add.Scalar":
            continue
        mean = _owner(added.operands[0])
        if mean is not None and mean.name in _MEANS:
            yield op


def weight_products(module: ir.Module) -> Iterator[Any]:
    """Each product with a weight of the model that is no linear layer."""
    for op in _every(module, _PRODUCTS):
        if any(_is_weight(value) for value in op.operands):
            yield op


def activations(module: ir.Module) -> Iterator[tuple[Any, str]]:
    """Each activation function that is still there, and its name; not those of linear layers
    that linalg serves, which it takes in as well."""
    for name in _ACTIVATIONS:
        for op in operations(module, f"torch.aten.{name}"):
            source = _owner(op.operands[0])
            if source is None or source.name != "torch.aten.linear":
                yield op, name


def _every(module: ir.Module, names: tuple[str, ...]) -> list[Any]:
    return [op for name in names for op in operations(module, name)]


def _owner(value: Any) -> Any | None:
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def _users(value: Any) -> Iterator[Any]:
    """Who reads a value, however it is viewed."""
    for use in value.uses:
        user = use.owner.operation
        if user.name in _VIEWS:
            yield from _users(user.results[0])
        else:
            yield user


def _is_weight(value: Any) -> bool:
    """Whether a value is a parameter, however it is viewed."""
    owner = _owner(value)
    while owner is not None and owner.name in _VIEWS:
        value = owner.operands[0]
        owner = _owner(value)
    return parameter_name(value) is not None
