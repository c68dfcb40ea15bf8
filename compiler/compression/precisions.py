"""What a recipe asks of precisions, matrix by matrix, in the compiler's words.

A bundle has one precision, the narrowest that is asked for; what is asked to be wider stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError, UnsupportedError
from .recipe import Recipe

__all__ = [
    "AskedPrecisions",
    "asked_precisions",
    "bundle_precision",
    "widest",
]

# From the widest on.
_ORDER = ("f32", "f16", "bf16", "int8", "int8-weights", "int4-weights")


@dataclass(frozen=True, kw_only=True)
class AskedPrecisions:
    """``wider``: by address of a weight, its precision, where that is not the bundle's.
    ``tables``: whether large tables of words are int8; None as the bundle's precision has it."""

    wider: Mapping[int, str] = field(default_factory=dict)
    tables: bool | None = None


def bundle_precision(recipe: Recipe | None) -> str:
    """The precision of a bundle that is compiled as ``recipe`` says; f32 without one."""
    if recipe is None:
        return "f32"
    rules = [rule.precision for rule in recipe.precision]
    return max((recipe.default_precision or "f32", *rules), key=_ORDER.index)


def asked_precisions(
    recipe: Recipe | None, model: Any, *, targets: Iterable[Any] = ()
) -> AskedPrecisions:
    """What ``recipe`` asks for the weights of ``model``.

    Raises `InputError` where it names a precision that one of ``targets`` does not do, or where
    a rule fits no matrix, `UnsupportedError` where ``model`` is no model of transformers.
    """
    tables = None if recipe is None else _tables(recipe)
    if recipe is None or (not recipe.precision and tables is None):
        return AskedPrecisions()
    if not hasattr(model, "base_model_prefix"):
        raise UnsupportedError(
            f"{type(model).__name__} is no model of transformers, so a recipe's names say nothing "
            "of it: leave the recipe out."
        )
    named = {f"precision[{n}].precision": r.precision for n, r in enumerate(recipe.precision)}
    named["default_precision"] = recipe.default_precision or "f32"
    for target in targets:
        for field_, precision in named.items():
            if precision not in target.precisions:
                raise InputError(
                    f"{field_}: target {target.name} cannot do {precision}: it can do "
                    f"{', '.join(target.precisions)}."
                )
    from .matching import products, rule_for, serving  # with torch, which the rest does without

    default, whole = recipe.default_precision or "f32", bundle_precision(recipe)
    wider = {}
    layers = products(model)
    for name, layer in layers.items():
        found = rule_for(recipe.precision, name, model)
        precision = found.precision if found is not None else default
        if precision != whole:
            wider[layer.weight.data_ptr()] = precision
    served = {id(rule) for rule in serving(recipe.precision, layers, model)}
    for index, rule in enumerate(recipe.precision):
        if id(rule) not in served:
            raise InputError(
                f"precision[{index}].match {rule.match!r} is the first to fit no matrix of "
                f"{type(model).__name__}."
            )
    return AskedPrecisions(wider=wider, tables=tables)


def widest(precisions: Iterable[str]) -> str:
    """The one that rounds least."""
    return min(precisions, key=_ORDER.index)


def _tables(recipe: Recipe) -> bool | None:
    """None where that is what the bundle's precision does anyway."""
    narrow = _ORDER.index("int8")
    bundle, default = bundle_precision(recipe), recipe.default_precision or "f32"
    asked = _ORDER.index(default) >= narrow
    asked = asked or (recipe.embedding is not None and recipe.embedding.int8)
    return None if asked == (_ORDER.index(bundle) >= narrow) else asked
