"""Which parameters a product reads in place of a weight, and in which precision it runs.

A request may say of a weight that it stays wider than the rest (``wider``), or that it was
rounded to int8 with what the layer reads in view (``rounded``): then there is a parameter that
holds the rounded weight, made for activations that are multiplied by a smoothing vector first.

Law of smoothing: x w^T = (x * v) (w / v)^T for a vector v over the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..kernels.choosing.choices import chosen_engine, is_measured
from ..kernels.choosing.problem import Problem
from ..kernels.engines.base import Engine
from ..kernels.product import ProductShape
from ..parameters import Parameter, ParameterTable
from ..quantization.precisions import WEIGHT_BITS
from .base import PatternContext
from .stored_weight import StoredWeight, stored_engine, stored_weight

__all__ = [
    "DTYPES",
    "engine_for_weight",
    "integer_vectors",
    "narrow_weight",
    "note_unmeasured",
    "parts_of",
    "precision_of",
    "product_weights",
    "rounded_weight",
    "static_form",
]

DTYPES = {"f32": "float32", "bf16": "int16", "int8": "int8"}
"""NumPy's word for what weights are packed as, by precision."""

_ORDER = ("f32", "f16", "bf16", "int8", "int8-weights", "int4-weights")


def precision_of(context: PatternContext, name: str) -> str:
    """The precision asked for the parameter ``name``; joined ones are as wide as the widest."""
    asked = [context.wider.get(part, context.precision) for part in parts_of(context, name)]
    return min(asked, key=_ORDER.index) if set(asked) <= set(_ORDER) else context.precision


def engine_for_weight(
    context: PatternContext, name: str, outputs: int, rows: int
) -> Engine | Literal["linalg"] | None:
    """The engine for the parameter ``name``; None where the core has none for the precision,
    "linalg" where IREE's own product was measured to be faster.

    Joined weights are as wide as the widest of them; bf16 becomes f32 on a core without it.
    """
    features = context.target.features
    precision = precision_of(context, name)
    shape = ProductShape(rows, context.parameters[name].shape[1], outputs)
    if precision in WEIGHT_BITS:
        stored = stored_engine(context, precision, shape)
        if stored is not None:
            note_unmeasured(context, Problem(precision, rows, shape.depth, outputs))
        return stored
    engine = chosen_engine(context.choices, features, precision, shape)
    if engine is None and precision != context.precision:
        precision = "f32"
        engine = chosen_engine(context.choices, features, precision, shape)
    if engine is not None:
        note_unmeasured(context, Problem(precision, rows, shape.depth, outputs))
    return engine


def note_unmeasured(context: PatternContext, problem: Problem) -> None:
    """Say of a product that a rule chose for it, if nobody measured it."""
    if not is_measured(context.choices, problem):
        context.unmeasured[problem] = None


def product_weights(
    context: PatternContext, engine: Engine, name: str
) -> tuple[tuple[Parameter, ...], str]:
    """The parameters in the kernel's order, and the name of the smoothing vector or ""."""
    table = context.parameters
    smoothing = ""
    if engine.precision == "int8":
        name, smoothing = rounded_weight(context, name)
    outputs, depth = table[name].shape
    packed = table.derive(
        "pack",
        [name],
        shape=engine.packed_shape(outputs, depth),
        dtype=DTYPES[engine.precision],
        engine=engine.packing,
    )
    if engine.precision != "int8":
        return (packed,), smoothing
    return (packed, *integer_vectors(table, name)), smoothing


def narrow_weight(
    context: PatternContext, engine: Engine, name: str, shape: ProductShape
) -> StoredWeight | None:
    """The parameter ``name`` as codes, where weights alone are to be narrow."""
    precision = precision_of(context, name)
    if precision not in WEIGHT_BITS:
        return None
    rounded, _ = rounded_weight(context, name)
    return stored_weight(context, engine, rounded, WEIGHT_BITS[precision], shape)


def static_form(context: PatternContext, engine: Engine, name: str) -> str:
    """The scale and offset by which the input of the weight ``name`` becomes the engine's 8 bits;
    "" where each row has its own."""
    if engine.precision != "int8":
        return ""
    found = {context.ranges.get(part, "") for part in parts_of(context, name)}
    range_ = found.pop() if len(found) == 1 else ""
    if not range_:
        return ""
    codes = "s8" if engine.signed else "u8"
    table = context.parameters
    return table.derive("static", [range_], shape=(2,), dtype="float32", codes=codes).name


def integer_vectors(table: ParameterTable, name: str) -> tuple[Parameter, ...]:
    """What an int8 product needs of the weight ``name`` beside its codes, by output."""
    outputs = table[name].shape[0]
    return tuple(
        table.derive(kind, [name], shape=(outputs,), dtype="float32")
        for kind in ("scales", "column_sums")
    )


def rounded_weight(context: PatternContext, name: str) -> tuple[str, str]:
    """The rounded weight and its smoothing vector; the weight itself where there is none."""
    parts = parts_of(context, name)
    found = [context.rounded[part] for part in parts if part in context.rounded]
    if len(found) != len(parts) or len({smoothing for _, smoothing in found}) > 1:
        return name, ""
    rounded = [weight for weight, _ in found]
    if len(rounded) == 1:
        return found[0]
    return context.parameters.concatenate(rounded, axis=0).name, found[0][1]


def parts_of(context: PatternContext, name: str) -> Sequence[str]:
    """The model's weights that ``name`` is joined of, by output, turned or not; else itself."""
    table = context.parameters
    return tuple(_turned(table, part) for part in _joined(table, name) or (name,))


def _turned(table: ParameterTable, name: str) -> str:
    """The weight that ``name`` is the transpose of; else itself."""
    derivation = table.derivations.get(name)
    return derivation.sources[0] if derivation and derivation.kind == "transposed" else name


def _joined(table: ParameterTable, name: str) -> tuple[str, ...]:
    derivation = table.derivations.get(name)
    if derivation is None or derivation.kind != "concatenate":
        return ()
    return derivation.sources if dict(derivation.attributes).get("axis") == 0 else ()
