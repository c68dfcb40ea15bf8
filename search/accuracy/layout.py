"""Where the sizes of an architecture are in a model: in which axes, in which matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ...compiler.compression.axes import axes_of
from ...compiler.compression.structure import Layer, Structure

__all__ = ["SizedAxes", "matrices_of", "sized_axes"]

SizedAxes = tuple[nn.Parameter, int | None, tuple[tuple[int, str], ...]]
"""A parameter, the layer that it is in, and what its axes run over."""


def sized_axes(structure: Structure) -> Mapping[tuple[nn.Module, str], SizedAxes]:
    """Of every parameter, by its module and its name there."""
    kinds: dict[int, list[tuple[int, str]]] = {}
    layer_of: dict[int, int] = {}
    for number, layer in enumerate(structure.layers):
        for what, cuts in (
            ("heads", layer.keep_heads(torch.arange(layer.heads))),
            ("ffn", layer.keep_ffn(torch.arange(layer.ffn))),
        ):
            for parameter, axis, _ in cuts:
                kinds.setdefault(id(parameter), []).append((axis, what))
        layer_of.update({id(parameter): number for parameter in layer.module.parameters()})
    parameters = dict(structure.model.named_parameters())
    for name, axes in axes_of(structure.model, "hidden").items():
        kinds.setdefault(id(parameters[name]), []).extend((axis, "hidden") for axis in axes)
    return {
        (module, name): (
            parameter,
            layer_of.get(id(parameter)),
            tuple(kinds.get(id(parameter), ())),
        )
        for module in structure.model.modules()
        for name, parameter in module.named_parameters(recurse=False)
    }


def matrices_of(layer: Layer) -> Iterator[tuple[str, nn.Linear]]:
    """The matrices of a layer, each with its kind in an architecture."""
    family = layer.family
    for kind, paths in (
        ("qkv", (family.query, family.key, family.value)),
        ("output", (family.output,)),
        ("up", family.ffn_in),
        ("down", (family.ffn_out,)),
    ):
        for path in paths:
            yield kind, layer.part(path)
