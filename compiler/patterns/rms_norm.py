"""Root-mean-square norms, which models write out of smaller operations.

%s = torch.aten.pow.Tensor_Scalar %x, 2            or torch.aten.mul.Tensor %x, %x
%m = torch.aten.mean.dim %s, [-1], keepdim
%r = torch.aten.rsqrt (%m + eps)
%y = (%x * %r) * %gamma                            each product in either order
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from iree.compiler import ir

from .base import operations
from .kernel_calls import only_user
from .torch_ops import constant_of, integers_of, tensor_shape

__all__ = ["RmsNorm", "rms_norms"]

_PRODUCT = "torch.aten.mul.Tensor"


@dataclass(frozen=True)
class RmsNorm:
    """``result`` is ``source`` over the root of its mean square plus ``eps``, times ``gamma``.

    ``ops``: all operations it is written in, in program order.
    """

    source: Any
    gamma: Any
    eps: float
    ops: tuple[Any, ...]

    @property
    def result(self) -> Any:
        """The last operation's."""
        return self.ops[-1].results[0]


def rms_norms(module: ir.Module) -> Iterator[RmsNorm]:
    """Each one over the last dimension, of f32, of which nothing else reads a part."""
    for root in operations(module, "torch.aten.rsqrt"):
        found = _norm_of(root)
        if found is not None:
            yield found


def _norm_of(root: Any) -> RmsNorm | None:
    added = _made_by(root.operands[0], "torch.aten.add.Scalar")
    mean = _made_by(added.operands[0], "torch.aten.mean.dim") if added else None
    square: Any = _made_by(mean.operands[0]) if mean else None
    source = _squared(square) if square else None
    if added is None or mean is None or source is None:
        return None
    shape, element = tensor_shape(source)
    last = integers_of(mean.operands[1])
    eps = constant_of(added.operands[1])
    if element != "f32" or last not in ([-1], [len(shape) - 1]) or eps is None:
        return None
    if constant_of(mean.operands[2]) is not True or constant_of(added.operands[2]) != 1:
        return None
    scaled = only_user(root.results[0])
    if scaled is None or _other(scaled, root.results[0]) != source:
        return None
    weighted: Any = only_user(scaled.results[0])
    gamma = _other(weighted, scaled.results[0]) if weighted else None
    if gamma is None or tensor_shape(gamma) != ((shape[-1],), "f32"):
        return None
    alone = all(only_user(op.results[0]) for op in (square, mean, added))
    ops = (square, mean, added, root, scaled, weighted)
    return RmsNorm(source, gamma, float(eps), ops) if alone else None


def _squared(op: Any) -> Any | None:
    """What ``op`` is the square of."""
    base, other = list(op.operands)[:2] if len(op.operands) > 1 else (None, None)
    if op.name == "torch.aten.pow.Tensor_Scalar" and constant_of(other) == 2:
        return base
    return base if op.name == _PRODUCT and base == other else None


def _made_by(value: Any, name: str = "") -> Any | None:
    """The operation that a value comes of, if it is called so."""
    if isinstance(value.owner, ir.Block):
        return None
    op = value.owner.operation
    return op if name in ("", op.name) else None


def _other(op: Any, value: Any) -> Any | None:
    """What a product multiplies ``value`` by."""
    if op.name != _PRODUCT:
        return None
    first, second = op.operands
    return second if first == value else first
