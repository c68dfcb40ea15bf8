"""A linear layer, what follows it element by element, and its residual, become one kernel.

Before::

    %y = torch.aten.linear %x, %w, %b
    %g = torch.aten.gelu %y                 (or relu, silu, tanh, nothing)
    %z = torch.aten.add.Tensor %g, %r       (or nothing)

After: ``%z = kernel(%x, packed %w, %b, %r)``: one dispatch, nothing in between in memory.

Law: fusion of element-wise consumers into a producer whose result nobody else reads. The packed
weight is a derived parameter: made once, when the bundle is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iree.compiler import ir

from ..kernels.engines.base import Engine
from ..kernels.engines.registry import engines
from ..kernels.epilogue import Epilogue
from ..kernels.forms import Form, form_for, plain
from ..kernels.isa import Isa, isa_for
from ..kernels.product import ProductShape, product_kernel
from ..kernels.weight_rows import WeightRows
from ..parameters import Parameter
from ..quantization.precisions import WEIGHT_BITS
from .activations import activation_of
from .base import Pattern, PatternContext, Stage, operations
from .kernel_calls import KernelCalls, only_user, rows_and_width
from .kernel_sparse import SparseWeight, sparse_stand_in, sparse_weight
from .planned import Planned, plan_op
from .product_weights import (
    engine_for_weight,
    narrow_weight,
    precision_of,
    product_weights,
    static_form,
)
from .stored_weight import StoredWeight, panel_engine
from .torch_ops import constant_of, parameter_name, tensor_shape
from .written_out import activations, weight_products

__all__ = ["KernelLinear", "planned_product", "product_engine"]

# Below this a product is a handful of dot products: nothing to tile.
_LEAST = 16


class KernelLinear(Pattern):
    """See the module's docstring."""

    name = "canao.kernel_linear"
    stage: Stage = "torch"
    target_kinds = ("cpu",)  # a kernel is code for one instruction set
    after = ("canao.fuse_qkv",)
    product_path = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Replace every linear layer that an engine serves."""
        applied = 0
        for op in operations(module, "torch.aten.linear"):
            engine = _engine_of(op, context)
            if isinstance(engine, str):
                context.fall_back(op, "linear layer", engine)
                continue
            context.kernels[f"product {engine.name}"] += 1
            self._replace(context, op, engine)
            applied += 1
        for op in weight_products(module):
            context.fall_back(op, "product", "because the model does not write a linear layer")
        if context.fusion == "auto":
            for op, function in activations(module):
                reason = "because no product's kernel takes it in"
                context.fall_back(op, f"activation {function}", reason)
        return applied

    def _replace(self, context: PatternContext, op: Any, engine: Engine) -> None:
        tail = _tail(op) if context.fusion == "auto" else _Tail([op], "none", None)
        source, weight, bias = op.operands
        rows, _ = rows_and_width(source)
        biased = str(bias.type) != "!torch.none"
        name = parameter_name(weight)
        assert name is not None  # _engine_of serves parameters only
        planned = planned_product(
            context,
            engine,
            name,
            rows,
            activation=tail.activation,
            biased=biased,
            added=tail.residual is not None,
        )
        operands = [source]
        operands += [bias] if biased else []
        operands += [tail.residual] if tail.residual is not None else []
        last = tail.ops[-1]
        location = ir.Location.fused([o.location for o in tail.ops])
        with ir.InsertionPoint(last):
            result = plan_op(context, planned, operands, last.results[0].type, location)
        last.results[0].replace_all_uses_with(result)
        for absorbed in reversed(tail.ops):
            absorbed.erase()


@dataclass(frozen=True, kw_only=True)
class PlannedProduct(Planned):
    """Operands: the activations, then the bias and the residual where there are such."""

    engine: Engine
    isa: Isa
    shape: ProductShape
    activation: str
    biased: bool
    added: bool
    weights: tuple[Parameter, ...]
    smoothing: str = ""
    static: str = ""
    symmetric: bool = False
    sparse: StoredWeight | SparseWeight | None = None

    def wants(self) -> Sequence[Form | None]:
        """See `Planned.wants`."""
        rows, depth = self.shape.rows, self.shape.depth
        if self.sparse is not None:
            form = self.sparse.form()
            symmetric = self.symmetric and form.integer
            form = replace(form, static=self.static, symmetric=symmetric)
        else:
            form = form_for(
                self.engine,
                *(rows, depth, self.smoothing, self.static),
                symmetric=self.symmetric,
            )
        wanted: list[Form | None] = [form]
        wanted += [None] if self.biased else []
        wanted += [plain(self.shape.rows, self.shape.outputs)] if self.added else []
        return wanted

    def offers(self, wanted: Sequence[Form]) -> Sequence[Form]:
        """One bf16 matrix where nobody wants another form."""
        if len(wanted) == 1 and wanted[0].kind == "bf16":
            return wanted
        return [plain(self.shape.rows, self.shape.outputs)]

    def emit(
        self, calls: KernelCalls, operands: Sequence[Sequence[Any]], forms: Sequence[Form]
    ) -> Mapping[Form, Sequence[Any]]:
        """See `Planned.emit`."""
        (form,) = forms
        epilogue = Epilogue(
            activation=self.activation,
            bias=self.biased,
            residual=self.added,
            output=form.kind,
            accurate=self.engine.precision == "f32",
            native_bf16=self.isa.native_bf16,
        )
        padded = (form.padded_rows, form.stride)
        exact = padded == (self.shape.rows, self.shape.outputs)
        result_shape = None if exact else padded
        activations, *others = operands
        if self.sparse is not None:
            kernel = self.sparse.kernel(epilogue, result_shape)
            arguments = self.sparse.arguments(calls, activations)
        else:
            kernel = product_kernel(self.engine, self.shape, epilogue, result_shape=result_shape)
            packed, *vectors = (calls.parameter(parameter) for parameter in self.weights)
            arguments = [activations[0], packed, *activations[1:], *vectors]
        if self.biased:
            (bias,) = others.pop(0)
            arguments.append(calls.builtin(bias))
        if self.added:
            arguments.extend(others.pop(0))
        # Some kernels have room to work in behind the result.
        return {form: calls.call(kernel, arguments)[: len(form.operands)]}


def product_engine(context: PatternContext, name: str, rows: int) -> Engine | str:
    """The engine for ``rows`` of activations and the weight ``name`` [outputs, depth]; the reason
    where linalg takes it."""
    outputs, depth = context.parameters[name].shape
    if min(outputs, depth) < _LEAST:
        return f"because {depth} x {outputs} is too small to tile"
    precision = precision_of(context, name)
    possible = engines(context.target.features, precision)
    if not all(engine.holds(depth) for engine in possible):
        return f"because a sum of {depth} products of codes may not fit in 32 bits"
    engine = engine_for_weight(context, name, outputs, rows)
    if engine == "linalg" or precision in WEIGHT_BITS:
        sparse = sparse_stand_in(context, name, ProductShape(rows, depth, outputs))
        if sparse is not None:
            return sparse
    if engine == "linalg":
        return "because that was measured to be faster"
    return engine or f"because no kernel does {context.precision} on this CPU"


def planned_product(
    context: PatternContext,
    engine: Engine,
    name: str,
    rows: int,
    *,
    activation: str,
    biased: bool,
    added: bool,
) -> PlannedProduct:
    """The kernel of a product by the weight ``name`` [outputs, depth], dense or by blocks."""
    outputs, depth = context.parameters[name].shape
    shape = ProductShape(rows, depth, outputs)
    dense = panel_engine(context, shape) if isinstance(engine, WeightRows) else engine
    sparse: StoredWeight | SparseWeight | None = None
    if dense is not None:
        sparse = sparse_weight(context, dense, name, shape)
    sparse = sparse or narrow_weight(context, engine, name, shape)
    weights, smoothing = (
        ((), sparse.smoothing) if sparse else product_weights(context, engine, name)
    )
    return PlannedProduct(
        engine=engine,
        isa=isa_for(context.target.features),
        shape=shape,
        activation=activation,
        biased=biased,
        added=added,
        weights=weights,
        smoothing=smoothing,
        static=static_form(context, engine, name),
        symmetric=context.symmetric,
        sparse=sparse,
    )


@dataclass(frozen=True)
class _Tail:
    """The linear layer and what its kernel absorbs, in order."""

    ops: list[Any]
    activation: str
    residual: Any | None


def _engine_of(op: Any, context: PatternContext) -> Engine | str:
    """The engine for a linear layer; the reason where linalg takes it."""
    source, weight, bias = op.operands
    name = parameter_name(weight)
    if name is None or len(tensor_shape(weight)[0]) != 2:
        return "because its weight is not a matrix of the model"
    vectors = [] if str(bias.type) == "!torch.none" else [bias]
    if any(tensor_shape(value)[1] != "f32" for value in (source, weight, *vectors)):
        return "because it is not of f32"
    rows, _ = rows_and_width(source)
    return product_engine(context, name, rows)


def _tail(op: Any) -> _Tail:
    ops = [op]
    activation, residual = "none", None
    user = only_user(op.results[0])
    spelled = activation_of(user) if user is not None else None
    if user is not None and spelled is not None:
        activation = spelled
        ops.append(user)
        user = only_user(user.results[0])
    if user is not None and user.name == "torch.aten.add.Tensor":
        residual = _residual(user, ops[-1].results[0])
        if residual is not None:
            ops.append(user)
    return _Tail(ops, activation, residual)


def _residual(op: Any, value: Any) -> Any | None:
    """What is added to ``value``, where it is added once and has the same type."""
    if constant_of(op.operands[2]) != 1:
        return None
    other = op.operands[1] if op.operands[0] == value else op.operands[0]
    return other if other.type == value.type and other != value else None
