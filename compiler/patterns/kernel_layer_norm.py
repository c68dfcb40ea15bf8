"""Normalization becomes one kernel that also writes what the next product reads.

Before::

    %y = torch.aten.layer_norm %x, [N], %gamma, %beta, eps      two or three dispatches
    (or a root-mean-square norm, written out: see rms_norm)
    (quantise or narrow %y for the product that follows)        another two

After: ``%y[, %y quantised, its scales] = kernel(%x, %gamma, %beta)``.

Law: none is needed, the values are the same. A row is normalized while it is in registers or the
first cache, and quantised there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iree.compiler import ir

from ..kernels.forms import Form, plain
from ..kernels.isa import Isa, isa_for
from ..kernels.normalize import Flavour, Output, layer_norm_kernel
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, rows_and_width
from .planned import Planned, plan_op
from .rms_norm import rms_norms
from .torch_ops import constant_of, integers_of, tensor_shape
from .written_out import norms

__all__ = ["KernelLayerNorm", "PlannedNorm"]


class KernelLayerNorm(Pattern):
    """See the module's docstring."""

    name = "canao.kernel_layer_norm"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # a kernel is code for one instruction set

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every norm over the last dimension, with a weight, of f32."""
        applied = 0
        for norm in list(rms_norms(module)):
            context.kernels["RMS norm"] += 1
            found = _Norm("rms", norm.ops, norm.source, norm.gamma, norm.eps)
            _replace(context, found)
            applied += 1
        for op in norms(module):
            context.fall_back(op, "norm", "because it is written out, and no RMS norm")
        for op in operations(module, "torch.aten.layer_norm"):
            if not _fits(op):
                reason = "because it is not over the last dimension alone, with a weight, of f32"
                context.fall_back(op, "layer norm", reason)
                continue
            context.kernels["layer norm"] += 1
            source, _, gamma, beta, eps = list(op.operands)[:5]
            shift = None if str(beta.type) == "!torch.none" else beta
            number = float(constant_of(eps) or 0.0)
            _replace(context, _Norm("layer", (op,), source, gamma, number, shift))
            applied += 1
        return applied


@dataclass(frozen=True, kw_only=True)
class PlannedNorm(Planned):
    """Operands: the matrix, gamma, and beta where there is one."""

    isa: Isa
    flavour: Flavour = "layer"
    rows: int
    width: int
    eps: float
    biased: bool

    def wants(self) -> Sequence[Form | None]:
        """See `Planned.wants`."""
        return [plain(self.rows, self.width), None, *([None] if self.biased else [])]

    def offers(self, wanted: Sequence[Form]) -> Sequence[Form]:
        """The plain matrix where it is wanted, and one narrower form."""
        flat = plain(self.rows, self.width)
        narrow = [form for form in wanted if form != flat]
        kept = [flat] if flat in wanted or len(narrow) > 1 else []
        return [*kept, *narrow[:1]]

    def emit(
        self, calls: KernelCalls, operands: Sequence[Sequence[Any]], forms: Sequence[Form]
    ) -> Mapping[Form, Sequence[Any]]:
        """See `Planned.emit`."""
        narrow = next((form for form in forms if form.kind != "f32"), None)
        names: dict[str, Output] = {"f32": "f32", "bf16": "bf16", "u8": "q", "s8": "q"}
        kernel = layer_norm_kernel(
            self.rows,
            self.width,
            lanes=self.isa.lanes,
            eps=self.eps,
            flavour=self.flavour,
            beta=self.biased,
            outputs=[names[form.kind] for form in forms],
            form="s8" if narrow is not None and narrow.kind == "s8" else "u8",
            native_bf16=self.isa.native_bf16,
            scheme="asymmetric" if narrow is None else narrow.scheme,
            smoothing=narrow is not None and bool(narrow.smoothing),
            padded_rows=narrow.padded_rows if narrow else None,
            row_stride=narrow.stride if narrow else None,
        )
        (matrix,), *vectors = operands
        arguments = [matrix, *(calls.builtin(vector) for (vector,) in vectors)]
        arguments += calls.smoothing(narrow) if narrow else []
        results = calls.call(kernel, arguments)
        written: dict[Form, Sequence[Any]] = {}
        for form in forms:
            count = len(form.operands)
            written[form], results = results[:count], results[count:]
        return written


@dataclass(frozen=True)
class _Norm:
    """``ops``: all operations it is written in, in program order, the last one its result."""

    flavour: Flavour
    ops: tuple[Any, ...]
    source: Any
    gamma: Any
    eps: float
    beta: Any | None = None


def _replace(context: PatternContext, norm: _Norm) -> None:
    """A kernel in place of all operations of a norm."""
    rows, width = rows_and_width(norm.source)
    planned = PlannedNorm(
        isa=isa_for(context.target.features),
        flavour=norm.flavour,
        rows=rows,
        width=width,
        eps=norm.eps,
        biased=norm.beta is not None,
    )
    operands = [norm.source, norm.gamma, *([] if norm.beta is None else [norm.beta])]
    last = norm.ops[-1]
    with ir.InsertionPoint(last):
        result = plan_op(context, planned, operands, last.results[0].type, last.location)
    last.results[0].replace_all_uses_with(result)
    for op in reversed(norm.ops):
        op.erase()


def _fits(op: Any) -> bool:
    source, shape, gamma, beta = list(op.operands)[:4]
    dims, element = tensor_shape(source)
    if element != "f32" or integers_of(shape) != [dims[-1]] or constant_of(op.operands[4]) is None:
        return False
    vectors = [gamma] if str(beta.type) == "!torch.none" else [gamma, beta]
    return all(
        str(vector.type) != "!torch.none" and tensor_shape(vector) == ((dims[-1],), "f32")
        for vector in vectors
    )
