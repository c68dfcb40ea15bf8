"""Which engine multiplies by stored codes, and what it reads in place of a weight.

Before::

    %y = torch.aten.linear %x, %w, %b                  weights alone are to be narrow

After: ``%y = kernel(%x, words, scales, %b)``, as `kernel_linear` plans it for the others.

Law: none, weights are rounded; the product is that of f32 or bf16. How codes are stored follows
from the core's vectors alone, so modules for one row and for many share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.choosing.choices import chosen_engine, chosen_for_codes
from ..kernels.engines.base import Engine
from ..kernels.engines.registry import engine_for
from ..kernels.epilogue import Epilogue
from ..kernels.executable import Kernel
from ..kernels.forms import Form, form_for
from ..kernels.isa import isa_for
from ..kernels.product import ProductShape
from ..kernels.weight_format import WeightFormat
from ..kernels.weight_only import weight_only_kernel
from ..kernels.weight_rows import rows_engine
from ..parameters import Parameter, ParameterTable
from .base import PatternContext
from .kernel_calls import KernelCalls

__all__ = ["StoredWeight", "panel_engine", "stored_engine", "stored_parameters", "stored_weight"]

# NumPy's words for what scales are stored as.
_SCALES = {8: "float32", 4: "int16"}


@dataclass(frozen=True)
class StoredWeight:
    """How a planned product reads a weight in 8 or 4 bits."""

    engine: Engine
    format: WeightFormat
    shape: ProductShape
    parameters: tuple[Parameter, ...]
    native_bf16: bool
    smoothing: str = ""

    def form(self) -> Form:
        """The form of the activations."""
        return form_for(self.engine, self.shape.rows, self.shape.depth)

    def kernel(self, epilogue: Epilogue, result_shape: tuple[int, int] | None) -> Kernel:
        """The product."""
        return weight_only_kernel(
            self.engine,
            self.format,
            self.shape,
            epilogue,
            native_bf16=self.native_bf16,
            result_shape=result_shape,
        )

    def arguments(self, calls: KernelCalls, activations: Sequence[Any]) -> list[Any]:
        """What the kernel takes before the bias."""
        return [*activations, *(calls.parameter(parameter) for parameter in self.parameters)]


def stored_engine(context: PatternContext, precision: str, shape: ProductShape) -> Engine | None:
    """As measured; else for few rows the one that reads codes, for many the `panel_engine`."""
    features = context.target.features
    measured = chosen_for_codes(context.choices, features, precision, shape)
    lanes = isa_for(features).lanes
    if measured is not None and measured.lanes == lanes and _takes(measured, shape):
        return measured
    return rows_engine(features, shape.rows) or panel_engine(context, shape)


def panel_engine(context: PatternContext, shape: ProductShape) -> Engine | None:
    """The one that multiplies by dequantised panels: of bf16, or of f32 where there is none."""
    features = context.target.features
    lanes = isa_for(features).lanes
    for wider in ("bf16", "f32"):
        engine = chosen_engine(context.choices, features, wider, shape)
        if engine == "linalg":
            engine = engine_for(features, wider, shape.outputs, shape.rows)
        if isinstance(engine, Engine) and engine.lanes == lanes and _takes(engine, shape):
            return engine
    return None


def _takes(engine: Engine, shape: ProductShape) -> bool:
    """Whether something makes the form that it reads: nothing pads activations of f32."""
    return engine.precision == "bf16" or engine.row_stride(shape.depth) == shape.depth


def stored_weight(
    context: PatternContext, engine: Engine, name: str, bits: int, shape: ProductShape
) -> StoredWeight:
    """The parameter ``name`` in ``bits``, as ``engine`` multiplies by it."""
    isa = isa_for(context.target.features)
    form = WeightFormat(bits, isa.lanes)
    parameters = stored_parameters(context.parameters, name, form)
    return StoredWeight(engine, form, shape, parameters, isa.native_bf16)


def stored_parameters(
    table: ParameterTable, name: str, form: WeightFormat
) -> tuple[Parameter, Parameter]:
    """The words and the scales of the weight ``name``."""
    outputs, depth = table[name].shape
    words = table.derive(
        "stored_words",
        [name],
        shape=form.words_shape(outputs, depth),
        dtype="int32",
        bits=form.bits,
        lanes=form.lanes,
    )
    scales = table.derive(
        "stored_scales",
        [name],
        shape=form.scales_shape(outputs, depth),
        dtype=_SCALES[form.bits],
        bits=form.bits,
        lanes=form.lanes,
    )
    return words, scales
