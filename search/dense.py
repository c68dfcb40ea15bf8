"""The dense model that a block-sparse one has to beat: equal FLOPs, trained alike.

Heads and feed-forward networks shrink together, by one factor, for a model that gives up one of
them alone is a poor rival. Where less than a third of both would be left, layers go first, until a
third of them stays: four layers of six at a third are a better quarter than six at a quarter.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ..compiler.compression.costs import model_costs
from ..compiler.compression.cutting import without_weights
from ..compiler.compression.low_rank import factorise_embedding
from ..compiler.compression.matching import products, serving
from ..compiler.compression.recipe import Recipe
from ..compiler.compression.structure import structure_of
from ..compiler.compression.structured import prune_in_place, uniform
from ..compiler.compression.validation import head_counts
from ..compiler.compression.vocabulary import keep_tokens

__all__ = ["dense_of_equal_flops", "unequal"]

_STEP = 16  # kernels work in multiples of it
_THIRD = 1 / 3
_NEAR = 0.97
_TOLERATED = 0.9


def dense_of_equal_flops(model: Any, recipe: Recipe, flops: int, seq_len: int) -> Recipe:
    """``recipe`` without its sparsity, smaller instead: at most ``flops``, and hardly less.

    ``model`` is the teacher; nothing is computed with it. Heads go in the steps that its family
    and the recipe's ``hidden`` allow, units by 16. Where the smallest such model has more than
    ``flops``, that one is given (`unequal` tells). Rules of precision that fit nothing in it are
    left out.
    """
    base = dataclasses.replace(recipe, sparsity=(), precision=())
    outline = without_weights(model)
    _take_away(outline, base)
    found = _shape_for(outline, base, flops, seq_len)
    smaller = _cut(outline, found)
    rules = serving(recipe.precision, products(smaller), smaller)
    return dataclasses.replace(_named(base, outline, found), precision=rules)


def unequal(dense: int, sparse: int) -> str | None:
    """A warning where a dense model's FLOPs are not about those of the block-sparse one."""
    if _TOLERATED * sparse <= dense <= sparse:
        return None
    why = (
        "no smaller one keeps a head and 16 units in a layer" if dense > sparse else "no step fits"
    )
    return (
        f"The dense model beside the block-sparse one has {dense / sparse:.2f} times its FLOPs "
        f"({why}): they are not comparable at equal FLOPs."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shape:
    """Which layers of an outline stay, and each one's heads and feed-forward units."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]


def _shape_for(outline: Any, base: Recipe, flops: int, seq_len: int) -> _Shape:
    structure = structure_of(outline)
    counts = [head_counts(base, structure, layer) for layer in structure.layers]
    widths = structure.ffn
    costs = _flops_of(outline, seq_len)

    def shape(layers: tuple[int, ...], of_heads: float, of_ffn: float) -> _Shape:
        return _Shape(
            layers=layers,
            heads=tuple(_nearest(counts[n], of_heads * counts[n][-1]) for n in layers),
            ffn=tuple(
                min(widths[n], max(_STEP, int(of_ffn * widths[n]) // _STEP * _STEP))
                for n in layers
            ),
        )

    def fits(one: _Shape) -> bool:
        return costs(one) <= flops

    layers = tuple(range(len(widths)))
    # Where scores are scaled by a layer's number, none can go.
    if not getattr(outline.config, "scale_attn_by_inverse_layer_idx", False):
        for share, least in ((_THIRD, math.ceil(len(widths) * _THIRD)), (0.0, 1)):
            while len(layers) > least and not fits(shape(layers, share, share)):
                layers = _evenly(len(widths), len(layers) - 1)
    share = _largest(lambda factor: fits(shape(layers, factor, factor)), max(widths))
    # Heads are few: what rounding them took or gave, the units make up for.
    wide = _largest(lambda factor: fits(shape(layers, share, factor)), max(widths))
    found = shape(layers, share, wide)
    if costs(found) < _NEAR * flops:
        found = _filled(found, [widths[n] for n in layers], fits)
    return found


def _flops_of(outline: Any, seq_len: int) -> Callable[[_Shape], float]:
    """`model_costs` of shapes of a model, in closed form: linear in heads and in units."""
    layers = structure_of(outline).layers
    by_head: list[float] = []
    by_unit: list[float] = []
    for layer in layers:
        family = layer.family
        paths = {family.query, family.key, family.value, family.output}
        heads = 2 * seq_len * sum(layer.part(path).weight.numel() for path in paths)
        units = sum(layer.part(path).weight.numel() for path in (*family.ffn_in, family.ffn_out))
        by_head.append(heads / layer.heads + 4 * layer.head_size * seq_len**2)
        by_unit.append(2 * seq_len * units / layer.ffn)

    def in_layers(one: _Shape) -> float:
        sizes = zip(one.layers, one.heads, one.ffn, strict=True)
        return sum(by_head[n] * heads + by_unit[n] * ffn for n, heads, ffn in sizes)

    structure = structure_of(outline)
    whole = _Shape(layers=tuple(range(len(layers))), heads=structure.heads, ffn=structure.ffn)
    others: float = model_costs(outline, seq_len).flops - in_layers(whole)
    return lambda one: others + in_layers(one)


def _filled(shape: _Shape, most: list[int], fits: Callable[[_Shape], bool]) -> _Shape:
    """``shape`` with 16 units more in as many layers as there is room for, from the first on."""
    for place, width in enumerate(shape.ffn):
        ffn = list(shape.ffn)
        ffn[place] = min(most[place], width + _STEP)
        wider = dataclasses.replace(shape, ffn=tuple(ffn))
        shape = wider if fits(wider) else shape
    return shape


def _largest(fits: Callable[[float], bool], steps: int) -> float:
    """The largest factor from 0 to 1 that fits, or 0; what fits at one fits at all below it."""
    low, high = 0.0, 1.0
    if fits(high):
        return high
    while high - low > _STEP / (4 * steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _nearest(counts: list[int], wanted: float) -> int:
    return min(counts, key=lambda count: abs(count - wanted))


def _evenly(count: int, kept: int) -> tuple[int, ...]:
    return tuple(place * count // kept for place in range(kept))


def _take_away(outline: Any, base: Recipe) -> None:
    """All that ``base`` takes from a model that is without weights, in place."""
    prune_in_place(outline, base, uniform(structure_of(outline)))
    embedding = base.embedding
    if embedding is not None and embedding.vocabulary is not None:
        keep_tokens(outline, range(embedding.vocabulary))
    if embedding is not None and embedding.rank is not None:
        factorise_embedding(outline, embedding.rank)


def _cut(outline: Any, shape: _Shape) -> Any:
    smaller = copy.deepcopy(outline)
    recipe = Recipe(layers=shape.layers, heads=shape.heads, ffn=shape.ffn)
    prune_in_place(smaller, recipe, uniform(structure_of(outline)))
    return smaller


def _named(base: Recipe, outline: Any, shape: _Shape) -> Recipe:
    """``base`` with the sizes of ``shape``. Importance chooses the layers where they are alike."""
    structure = structure_of(outline)
    alike = len(set(structure.heads)) == len(set(structure.ffn)) == 1
    layers: tuple[int, ...] | int | None = base.layers
    if len(shape.layers) < len(structure.layers):
        layers = len(shape.layers)
        if isinstance(base.layers, tuple) or not alike:
            every = base.layers if isinstance(base.layers, tuple) else range(len(structure.layers))
            layers = tuple(every[place] for place in shape.layers)
    return dataclasses.replace(
        base, layers=layers, heads=_one_or_each(shape.heads), ffn=_one_or_each(shape.ffn)
    )


def _one_or_each(sizes: tuple[int, ...]) -> tuple[int, ...] | int:
    return sizes[0] if len(set(sizes)) == 1 else sizes
